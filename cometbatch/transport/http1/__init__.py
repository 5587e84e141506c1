"""HTTP/1.1 over sockets of our own: a pool of connections that are not trusted."""
