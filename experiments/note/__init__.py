"""What the study note computes, recomputed: an experiment per section."""
