"""Who is who: certificates for workloads, and the roots that prove them."""
