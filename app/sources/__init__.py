"""Where pages come from: async iterators."""
