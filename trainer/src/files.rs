//! Output that appears whole or not at all: written under another name, then renamed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::error::{Result, invalid, io};

/// A folder beside the final place. Dropping it removes it, and the folders that were made to hold
/// it unless something was published there.
pub struct Staging {
    folder: PathBuf,
    target: PathBuf,
}

/// The staging folders of this process, each with the folders that were made to hold it, innermost
/// first. Files are written and moved under its lock, so that [`abandon`] comes in between.
static UNFINISHED: Mutex<BTreeMap<PathBuf, Vec<PathBuf>>> = Mutex::new(BTreeMap::new());

type Unfinished = MutexGuard<'static, BTreeMap<PathBuf, Vec<PathBuf>>>;

impl Staging {
    /// A new folder beside `target`, whose folder is made if it does not exist.
    ///
    /// Errors: IO.
    pub fn beside(target: &Path) -> Result<Self> {
        let parent = parent(target);
        let mut unfinished = unfinished();
        let made = missing(parent);
        match make(parent) {
            Ok(folder) => {
                unfinished.insert(folder.clone(), made);
                let target = target.to_owned();
                Ok(Self { folder, target })
            }
            Err(e) => {
                remove_empty(&made);
                Err(io("write", target)(e))
            }
        }
    }

    /// Where a file called `name` is staged.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file.
    ///
    /// Errors: IO, naming the target: the staging folder is gone when people read it.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let _unfinished = unfinished();
        fs::write(self.path(name), bytes).map_err(io("write", &self.target))
    }

    /// A new file, for one that is written piece by piece.
    ///
    /// Errors: IO, naming the target.
    pub fn create(&self, name: impl AsRef<Path>) -> Result<File> {
        let _unfinished = unfinished();
        File::create(self.path(name)).map_err(io("write", &self.target))
    }

    /// Copies a file, of any size, under another name.
    ///
    /// Errors: IO, naming the file or the target.
    pub fn copy(&self, name: impl AsRef<Path>, from: &Path) -> Result<()> {
        let mut source = File::open(from).map_err(io("read", from))?;
        let mut file = self.create(name)?;
        // In the kernel, where file systems share what they can.
        std::io::copy(&mut source, &mut file).map_err(io("write", &self.target))?;
        Ok(())
    }

    /// What it is all for.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Moves the files called like `targets` to their final places.
    ///
    /// Errors: IO.
    pub fn publish(&self, targets: &[&Path]) -> Result<()> {
        let _unfinished = unfinished();
        let staged = |target: &Path| self.path(target.file_name().unwrap_or_default());
        for target in targets {
            sync(&staged(target)).map_err(io("write", target))?;
        }
        for target in targets {
            fs::rename(staged(target), target).map_err(io("write", target))?;
            sync(parent(target)).map_err(io("write", target))?;
        }
        Ok(())
    }

    /// Makes the folder itself appear as the target, in the place of an empty one.
    ///
    /// Errors: IO.
    pub fn publish_folder(self) -> Result<()> {
        let _unfinished = unfinished();
        // Without the `/.` that may end it, which cannot be renamed.
        let target = parent(&self.target).join(self.target.file_name().unwrap_or_default());
        sync_all(&self.folder).map_err(io("write", &target))?;
        // Fails unless there is an empty folder; then renaming says what is wrong.
        let _ = fs::remove_dir(&target);
        fs::rename(&self.folder, &target).map_err(io("write", &target))?;
        sync(parent(&target)).map_err(io("write", &target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(made) = unfinished().remove(&self.folder) {
            remove(&self.folder, &made);
        }
    }
}

/// Removes whatever this process has not finished, for a process that is told to stop. Nothing is
/// written while the result lives: exit before it is dropped.
pub fn abandon() -> impl Sized {
    let unfinished = unfinished();
    for (folder, made) in unfinished.iter() {
        remove(folder, made);
    }
    unfinished
}

/// Writes one file, whole or not at all.
///
/// Errors: IO.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    let staging = Staging::beside(target)?;
    staging.write(target.file_name().unwrap_or_default(), bytes)?;
    staging.publish(&[target])
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

/// Whether `folder` can be filled: it can be made, or is empty.
///
/// Errors: IO; INVALID_ARGUMENT if it holds anything, or cannot be replaced because it is a
/// symbolic link or has no name of its own.
pub fn check_empty(folder: &Path) -> Result<()> {
    let refuse = |what: &str| Err(invalid(format!("'{}' {what}", folder.display())));
    let Some(name) = folder.file_name() else {
        return refuse("is no name; name a new folder");
    };
    // Without a slash at its end, which would follow the link.
    if parent(folder).join(name).is_symlink() {
        return refuse("is a symbolic link; name a new folder, or the one it points to");
    }
    let occupied = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(io("write to the folder", folder)(e)),
    };
    if occupied {
        return refuse("is not empty; name a new folder or empty this one");
    }
    Staging::beside(folder).map(drop)
}

/// Whether both paths are the same place, even one where nothing is yet.
pub fn same_place(a: &Path, b: &Path) -> bool {
    place(a) == place(b)
}

/// Whether a file at `path` lies directly in `folder`.
pub fn lies_in(path: &Path, folder: &Path) -> bool {
    same_place(parent(path), folder)
}

/// The path without links and dots, as far as it exists.
fn place(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.file_name()) {
        (Ok(place), _) => place,
        (Err(_), Some(name)) => place(parent(path)).join(name),
        (Err(_), None) => path.to_owned(),
    }
}

fn unfinished() -> Unfinished {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folders from `folder` outwards that do not exist.
fn missing(folder: &Path) -> Vec<PathBuf> {
    let outwards = folder.ancestors();
    let missing = outwards.take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    missing.map(Path::to_owned).collect()
}

/// A new hidden folder in `parent`.
fn make(parent: &Path) -> std::io::Result<PathBuf> {
    fs::create_dir_all(parent)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".dwf-");
    // Temporary folders are private by default, but this one may become the user's.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    // tempfile would not remove it when the process is told to stop.
    Ok(builder.tempdir_in(parent)?.keep())
}

/// Waits until a file, or the names in a folder, are on the disk: after a power cut, what has its
/// final name is whole.
fn sync(path: &Path) -> std::io::Result<()> {
    // Elsewhere folders cannot be opened.
    if cfg!(unix) || path.is_file() {
        return File::open(path)?.sync_all();
    }
    Ok(())
}

/// The same for a folder and everything in it.
fn sync_all(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(folder)
}

/// Nobody is left to tell if it fails: the process is ending, or has another error to report.
fn remove(folder: &Path, made: &[PathBuf]) {
    let _ = fs::remove_dir_all(folder);
    remove_empty(made);
}

fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
