"""How far validation and test frames are from the training frames, and what results on them therefore show."""
