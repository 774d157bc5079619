//! Output that appears whole or not at all: written under another name, then renamed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::error::{Result, invalid, io};

/// A folder beside the final place, gone again unless its content is published.
pub struct Staging {
    folder: TempDir,
}

impl Staging {
    /// A new folder beside `target`, whose folder is made if it does not exist.
    ///
    /// Errors: IO.
    pub fn beside(target: &Path) -> Result<Self> {
        let parent = parent(target);
        fs::create_dir_all(parent).map_err(io("create", parent))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".dwf-");
        // Temporary folders are private by default, but this one may become the user's.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let folder = builder
            .tempdir_in(parent)
            .map_err(io("create a folder in", parent))?;
        Ok(Self { folder })
    }

    /// Where a file called `name` is staged.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    ///
    /// Errors: IO.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, bytes).map_err(io("write", &path))
    }

    /// Moves the file called like `target` to its final place.
    ///
    /// Errors: IO.
    pub fn publish(&self, target: &Path) -> Result<()> {
        let staged = self.path(target.file_name().unwrap_or_default());
        fs::rename(staged, target).map_err(io("write", target))
    }

    /// Makes the folder itself appear at `target`, in the place of an empty one.
    ///
    /// Errors: IO.
    pub fn publish_folder(self, target: &Path) -> Result<()> {
        // Fails unless there is an empty folder; then renaming says what is wrong.
        let _ = fs::remove_dir(target);
        fs::rename(self.folder.path(), target).map_err(io("write", target))?;
        let _ = self.folder.keep();
        Ok(())
    }
}

/// Writes one file, whole or not at all.
///
/// Errors: IO.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    let staging = Staging::beside(target)?;
    staging.write(target.file_name().unwrap_or_default(), bytes)?;
    staging.publish(target)
}

/// Whether a file can be written at `target`: better said before the work than after it.
///
/// Errors: IO; INVALID_ARGUMENT if it is a folder.
pub fn check_file(target: &Path) -> Result<()> {
    if target.is_dir() {
        return Err(invalid(format!(
            "'{}' is a folder; name a file",
            target.display()
        )));
    }
    Staging::beside(target).map(drop)
}

/// Whether `folder` can be filled: it does not exist, or is empty.
///
/// Errors: IO; INVALID_ARGUMENT if it holds anything.
pub fn check_empty(folder: &Path) -> Result<()> {
    let occupied = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(io("write to the folder", folder)(e)),
    };
    if occupied {
        return Err(invalid(format!(
            "'{}' is not empty; name a new folder or empty this one",
            folder.display()
        )));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
