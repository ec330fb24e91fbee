//! Network devices of the kernel: netlink, ethtool, AF_XDP and packet sockets.
