"""What features of data see, and energies that read them."""
