"""The whole mesh with real processes: what an application sees of it, and what it must never see."""
