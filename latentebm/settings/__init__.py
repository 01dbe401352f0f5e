"""Every setting of the main job, each declared once."""
