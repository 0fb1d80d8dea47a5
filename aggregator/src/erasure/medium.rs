//! What a state folder lies on: whether overwriting a file reaches its old bytes depends on it.

use std::fs;
use std::path::Path;

/// The type of the file system that `path` is on, as the kernel names it; `unknown` where it does not say.
pub(super) fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    of_mounts(&mounts, &path).unwrap_or("unknown").to_owned()
}

/// proc(5): the fifth field is the mount point, the first one after a lone `-` the type. Of the mount points above `path`, the longest counts,
/// and of several at one place the last.
fn of_mounts<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mut found: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let (Some(point), Some((_, after))) = (line.split(' ').nth(4), line.split_once(" - ")) else { continue };
        let length = point.len();
        if path.starts_with(point) && found.is_none_or(|(longest, _)| longest <= length) {
            found = after.split(' ').next().map(|kind| (length, kind));
        }
    }
    found.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_point_counts() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:20 / /srv/data rw shared:1 - btrfs /dev/vdb rw\n\
                      31 22 0:21 / /srv/data rw - xfs /dev/vdc rw\n";
        assert_eq!(of_mounts(mounts, Path::new("/home/x")), Some("ext4"));
        assert_eq!(of_mounts(mounts, Path::new("/srv/data/state")), Some("xfs"));
        assert_eq!(of_mounts(mounts, Path::new("/srv/database")), Some("ext4"));
        assert_eq!(of_mounts("nonsense", Path::new("/")), None);
        assert_ne!(file_system(Path::new(".")), "");
    }
}
