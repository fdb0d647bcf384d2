"""Where names and addresses lead: endpoints and profiles for every proxy."""
