//! Where the cgroup v2 hierarchy is mounted.

use std::path::PathBuf;

/// The mount of the cgroup v2 hierarchy, from the text of `/proc/self/mounts`.
pub fn find_mount(mounts: &str) -> Option<PathBuf> {
    let mut fields = mounts.lines().map(|line| line.split(' '));
    fields.find_map(|mut line| {
        let (_, directory, kind) = (line.next()?, line.next()?, line.next()?);
        // The kernel writes spaces and such as octal escapes; no distribution mounts it there.
        (kind == "cgroup2").then(|| PathBuf::from(directory))
    })
}

/// The mount of the cgroup v2 hierarchy on this machine.
pub fn default_cgroup() -> Option<PathBuf> {
    find_mount(&std::fs::read_to_string("/proc/self/mounts").ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_beside_the_first() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_mount(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\n"), None);
    }
}
