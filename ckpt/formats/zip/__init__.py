"""The zip archives of `torch.save`: read strictly, and written."""
