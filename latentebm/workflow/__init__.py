"""The main job: settings, the problem they pose, the Debiaser that solves it, the run folder it leaves."""
