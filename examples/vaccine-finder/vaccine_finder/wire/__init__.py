"""What the services say to each other; `*_pb2` modules are generated from `proto/`, never edited."""
