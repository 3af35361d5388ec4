"""Parts of `make gpu-check`: what one GPU can show. Each also runs with --device cpu."""
