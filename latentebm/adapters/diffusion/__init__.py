"""What a diffusion model of the diffusers library is run by: its prompts, its scheduler, its network."""
