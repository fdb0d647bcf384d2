"""Who is let in, asked of live proxies."""
