"""Meta-training of the published network: people, episodes, and the loop that learns from them."""
