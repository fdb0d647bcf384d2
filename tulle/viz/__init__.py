"""What the proxies count, in numbers for people."""
