"""What a topology is good for: its rates and costs, what it is safe for, which one to choose."""
