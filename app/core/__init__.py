"""The nouns that everybody shares: page, budget, channel, segment, interfaces, errors. Standard library only."""
