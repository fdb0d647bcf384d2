"""Who may talk to whom, and how: inbound and outbound policies for every proxy."""
