//! The work folder: finished parts of a long run, kept beside its output until it is done.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use dwf::metadata::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Result, invalid, io};

/// `NAME.work` beside an output `NAME.onnx` or folder `NAME`. It stays when the run is
/// interrupted or fails, so that the next run with the same inputs goes on from there.
pub struct Work {
    folder: PathBuf,
}

/// Bytes of a seal.
const SEAL: usize = 32;

/// The part of one stage, that belongs to its inputs and options.
pub struct Part {
    folder: PathBuf,
}

impl Work {
    /// The work folder beside `output`, made if it does not exist.
    ///
    /// Errors: IO; INVALID_ARGUMENT if there is a folder of that name that holds something else.
    pub fn open(output: &Path) -> Result<Self> {
        let mut name = output.file_stem().unwrap_or_default().to_owned();
        name.push(".work");
        let folder = output.with_file_name(name);
        fs::create_dir_all(&folder).map_err(io("write", &folder))?;
        let work = Self { folder };
        match work.entries()?.iter().find(|name| !is_part(name)) {
            None => Ok(work),
            Some(name) => Err(invalid(format!(
                "'{}' is where unfinished work would be kept, and holds '{name}', which is none of \
                 it; move that folder or choose another output",
                work.folder.display()
            ))),
        }
    }

    fn entries(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder).map_err(io("read", &self.folder))?;
        let name = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.map_err(io("read", &self.folder))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The part of `stage` (letters only) for everything that `key` says. What the stage left
    /// under another key is of no use any more and is removed.
    ///
    /// Errors: IO.
    pub fn part(&self, stage: &str, key: &impl Serialize) -> Result<Part> {
        let json = serde_json::to_vec(key).expect("keys are plain data");
        let name = format!("{stage}-{}", &hex(&Sha256::digest(json))[..16]);
        let folder = self.folder.join(&name);
        let prefix = format!("{stage}-");
        for found in self.entries()? {
            if is_part(&found) && found.starts_with(&prefix) && found != name {
                let _ = fs::remove_dir_all(self.folder.join(found));
            }
        }
        fs::create_dir_all(&folder).map_err(io("write", &folder))?;
        Ok(Part { folder })
    }

    /// The run is done: removes its parts, and the folder.
    ///
    /// Errors: IO.
    pub fn finish(self) -> Result<()> {
        for part in self.entries()?.iter().filter(|name| is_part(name)) {
            let part = self.folder.join(part);
            fs::remove_dir_all(&part).map_err(io("remove", &part))?;
        }
        fs::remove_dir(&self.folder).map_err(io("remove", &self.folder))
    }
}

/// Whether a part is called so: its stage and 16 hexadecimal digits.
fn is_part(name: &str) -> bool {
    let digits = |key: &str| key.len() == 16 && key.bytes().all(|c| c.is_ascii_hexdigit());
    let letters = |stage: &str| stage.bytes().all(|c| c.is_ascii_alphabetic() || c == b' ');
    let split = name.rsplit_once('-');
    split.is_some_and(|(stage, key)| letters(stage) && digits(key))
}

impl Part {
    /// Where a file called `name` lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file's content, if [`Part::write`] wrote it here: what is damaged or from elsewhere is as
    /// good as nothing.
    ///
    /// Errors: IO.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("read", &path)(e)),
        };
        let seal = bytes.split_off(bytes.len().saturating_sub(SEAL));
        Ok((seal == self.seal(name, &bytes)).then_some(bytes))
    }

    /// Writes a file, whole or not at all.
    ///
    /// Errors: IO.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, draft) = (self.path(name), self.path(&format!("{name}.draft")));
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(bytes)?;
            file.write_all(&self.seal(name, bytes))
        };
        write().map_err(io("write", &draft))?;
        fs::rename(&draft, &path).map_err(io("write", &path))
    }

    /// What every file ends with: a digest of where it lies and what it holds.
    fn seal(&self, name: &str, bytes: &[u8]) -> [u8; SEAL] {
        let part = self.folder.file_name().unwrap_or_default();
        let place = format!("{}/{name}/", part.to_string_lossy());
        let digest = Sha256::new().chain_update(place).chain_update(bytes);
        digest.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join("nets.work");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.txt"), b"x").unwrap();
        let error = Work::open(&folder.path().join("nets")).err().unwrap();
        assert!(error.to_string().contains("thesis.txt"), "{error}");
        assert!(foreign.join("thesis.txt").exists());
        // What comes while the work lasts stays, too, and says so.
        let work = Work::open(&folder.path().join("new.onnx")).unwrap();
        work.part("flow", &1).unwrap();
        let stranger = work.folder().join("stranger");
        fs::write(&stranger, b"x").unwrap();
        assert!(work.finish().is_err());
        assert!(stranger.exists());
    }

    #[test]
    fn parts_last_as_long_as_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("iris.onnx");
        let work = Work::open(&output).unwrap();
        assert_eq!(work.folder(), folder.path().join("iris.work"));
        let part = work.part("align", &("zoo", 3)).unwrap();
        assert_eq!(part.read("done").unwrap(), None);
        part.write("done", b"12").unwrap();
        work.part("flow", &1).unwrap().write("state", b"x").unwrap();
        // Another process goes on.
        let work = Work::open(&output).unwrap();
        let part = work.part("align", &("zoo", 3)).unwrap();
        assert_eq!(part.read("done").unwrap().unwrap(), b"12");
        // Another key begins anew, without the old part.
        let part = work.part("align", &("zoo", 4)).unwrap();
        assert_eq!(part.read("done").unwrap(), None);
        let part = work.part("align", &("zoo", 3)).unwrap();
        assert_eq!(part.read("done").unwrap(), None);
        let part = work.part("flow", &1).unwrap();
        assert_eq!(part.read("state").unwrap().unwrap(), b"x");
        work.finish().unwrap();
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_is_damaged_or_from_elsewhere_is_as_good_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::open(&folder.path().join("iris.onnx")).unwrap();
        let [part, other] = ["align", "flow"].map(|stage| work.part(stage, &1).unwrap());
        part.write("a", b"weights").unwrap();
        let whole = fs::read(part.path("a")).unwrap();
        for cut in 0..whole.len() {
            fs::write(part.path("a"), &whole[..cut]).unwrap();
            assert_eq!(part.read("a").unwrap(), None, "{cut} bytes");
            let mut damaged = whole.clone();
            damaged[cut] ^= 1;
            fs::write(part.path("a"), damaged).unwrap();
            assert_eq!(part.read("a").unwrap(), None, "byte {cut}");
        }
        for place in [part.path("b"), other.path("a")] {
            fs::write(place, &whole).unwrap();
        }
        assert_eq!(part.read("b").unwrap(), None);
        assert_eq!(other.read("a").unwrap(), None);
        fs::write(part.path("a"), &whole).unwrap();
        assert_eq!(part.read("a").unwrap().unwrap(), b"weights");
    }
}
