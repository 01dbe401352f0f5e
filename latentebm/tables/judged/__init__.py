"""What a made table is worth: measures, utility, privacy, and the report that shows them."""
