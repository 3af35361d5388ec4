"""Parts of `make gpu-check`: what one GPU can show."""
