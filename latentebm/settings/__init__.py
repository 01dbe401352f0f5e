"""Every setting of the main job, each declared once; nothing here imports torch, so mistakes are answered at once."""
