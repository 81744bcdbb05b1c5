"""What a trainer keeps beside the weights, and how it follows a rename of them."""
