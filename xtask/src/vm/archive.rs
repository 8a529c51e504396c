//! Writes an archive that the kernel unpacks as its first file system: cpio, format "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;

/// The archive so far. Names are paths without a leading slash; a directory comes before what is in it.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    directories: Vec<String>,
}

impl Archive {
    /// A file that can be run.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), content);
    }

    /// A file with data.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE, (0, 0), content);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK, (0, 0), target.as_bytes());
    }

    /// An empty directory.
    pub(super) fn directory(&mut self, name: &str) {
        self.parents(&format!("{name}/"));
    }

    /// The device that the first process gets as its standard input and output.
    pub(super) fn console(&mut self) {
        self.entry("dev/console", CONSOLE, (5, 1), &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.raw(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.parents(name);
        self.raw(name, mode, device, content);
    }

    fn parents(&mut self, name: &str) {
        for (end, _) in name.match_indices('/') {
            let directory = &name[..end];
            if !self.directories.iter().any(|known| known == directory) {
                self.directories.push(directory.to_owned());
                self.raw(directory, DIRECTORY, (0, 0), &[]);
            }
        }
    }

    fn raw(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.inode += 1;
        // Every field has eight digits; no file here is as large as 4 GiB.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_parents_come_once_and_first() {
        let mut archive = Archive::default();
        archive.file("etc/a", b"x");
        archive.link("etc/b", "a");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let starts: Vec<usize> = text.match_indices(MAGIC).map(|(start, _)| start).collect();
        assert!(starts.iter().all(|start| start % 4 == 0), "{starts:?}");
        let name = |start: &usize| text[start + 110..].split('\0').next().unwrap().to_owned();
        assert_eq!(starts.iter().map(name).collect::<Vec<_>>(), ["etc", "etc/a", "etc/b", TRAILER]);
    }
}
