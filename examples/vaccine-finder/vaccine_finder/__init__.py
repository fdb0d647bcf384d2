"""The vaccine finder: six small services that together let insured families find and book vaccines."""
