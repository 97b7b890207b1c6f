//! eBPF programs on a cgroup, and their loader.
