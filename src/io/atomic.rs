//! Output files that are whole or absent: write to a temporary beside the target, sync, rename.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::error::{Error, Result};

/// Writes a file in one piece: `fill` writes to a temporary in the same folder, which is synced to disk and
/// then renamed to `path`. Where anything fails, `path` is left as it was.
///
/// ```
/// use std::io::Write;
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("numbers.txt");
/// wellposed::io::atomic::write(&path, |out| out.write_all(b"1 2 3")).unwrap();
/// assert_eq!(std::fs::read(&path).unwrap(), b"1 2 3");
/// ```
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>) -> Result<()> {
    let temporary = temporary(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    fill(&mut out).and_then(|()| out.flush()).map_err(|e| Error::io(path, e))?;
    drop(out);
    publish(temporary, path)
}

/// As [`write()`], for writers that want a path: `fill` writes the file that it is given the path of.
pub fn write_path(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary(path)?;
    fill(temporary.path())?;
    publish(temporary, path)
}

/// A file in the making: a temporary in the folder of the target, gone where it is dropped before it is published.
pub(crate) struct Pending {
    temporary: NamedTempFile,
    path: PathBuf,
}

impl Pending {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        Ok(Self { temporary: temporary(path)?, path: path.to_path_buf() })
    }

    /// The target.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> Result<File> {
        self.temporary.as_file().try_clone().map_err(|e| Error::io(&self.path, e))
    }

    /// Makes it the target; whoever wrote has flushed.
    pub(crate) fn publish(self) -> Result<()> {
        publish(self.temporary, &self.path)
    }
}

/// As [`Pending`], a folder of files.
pub(crate) struct PendingFolder {
    temporary: TempDir,
    path: PathBuf,
}

impl PendingFolder {
    /// # Errors
    /// [`Error::Io`]; [`Error::Parameter`] where `path` exists already and is not an empty folder.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        check_folder(path)?;
        let parent = parent(path);
        let temporary =
            Builder::new().prefix(".wellposed-").tempdir_in(parent).map_err(|e| Error::io(path, e))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(temporary.path(), open).map_err(|e| Error::io(path, e))?;
        }
        Ok(Self { temporary, path: path.to_path_buf() })
    }

    /// The temporary.
    pub(crate) fn place(&self) -> &Path {
        self.temporary.path()
    }

    pub(crate) fn publish(self) -> Result<()> {
        std::fs::rename(self.temporary.path(), &self.path).map_err(|e| Error::io(&self.path, e))?;
        // The folder now lies at its place; only the guard that would delete the old name is left.
        let _ = self.temporary.keep();
        Ok(())
    }
}

/// An error where a file can't be written at `path`: ask before the long work starts.
///
/// # Errors
/// [`Error::Io`] where the folder is missing or not writable; [`Error::Parameter`] where `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    temporary(path).map(drop)
}

/// An error where a folder of files can't be made at `path`: ask before the long work starts.
///
/// # Errors
/// [`Error::Io`] where the parent is missing or not writable; [`Error::Parameter`] where `path` is a file or
/// a folder with something in it.
pub fn check_folder(path: &Path) -> Result<()> {
    if path.exists() {
        let empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            let reason = "exists already; name a new folder or an empty one";
            return Err(Error::parameter("output", path.display(), reason));
        }
    }
    Builder::new().prefix(".wellposed-").tempdir_in(parent(path)).map(drop).map_err(|e| Error::io(path, e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn temporary(path: &Path) -> Result<NamedTempFile> {
    if path.is_dir() {
        return Err(Error::parameter("output", path.display(), "is a folder, expected the name of a file"));
    }
    if path.file_name().is_none() {
        return Err(Error::parameter("output", path.display(), "is not the name of a file"));
    }
    let mut builder = Builder::new();
    builder.prefix(".wellposed-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What a plain `File::create` would ask for; the user's umask still applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(parent(path)).map_err(|e| Error::io(path, e))
}

fn publish(temporary: NamedTempFile, path: &Path) -> Result<()> {
    // Reopened, because a writer that was given the path may have replaced the file behind our handle.
    File::open(temporary.path()).and_then(|f| f.sync_all()).map_err(|e| Error::io(path, e))?;
    temporary.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write(&path, |out| {
            out.write_all(b"new")?;
            Err(std::io::Error::other("disk on fire"))
        });
        assert!(failed.unwrap_err().to_string().ends_with("a: disk on fire"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn unwritable_outputs_are_found_early() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(check_writable(folder.path()), Err(Error::Parameter { .. })));
        assert!(matches!(check_writable(&folder.path().join("no/such/a")), Err(Error::Io { .. })));
        check_writable(&folder.path().join("a")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_appear_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("series");
        let failed = PendingFolder::new(&path).unwrap();
        write(&failed.place().join("1"), |out| out.write_all(b"1")).unwrap();
        drop(failed);
        assert!(!path.exists());
        let good = PendingFolder::new(&path).unwrap();
        write(&good.place().join("1"), |out| out.write_all(b"1")).unwrap();
        good.publish().unwrap();
        assert_eq!(std::fs::read(path.join("1")).unwrap(), b"1");
        assert!(check_folder(&path).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
