//! The process-wide log hook; silent until one is set.

use std::sync::{
    RwLock,
    atomic::{AtomicU32, Ordering},
};

/// How grave a message is; also the threshold of [`set`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A call of a C function is about to fail with this text; not one that was cancelled.
    Error = 1,
    /// It works, but not as well as it could.
    Warn = 2,
    /// What was found and chosen.
    Info = 3,
    /// Everything.
    Debug = 4,
}

impl Level {
    /// The level with this number in the C ABI.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug]
            .into_iter()
            .find(|level| *level as u32 == code)
    }
}

type Hook = Box<dyn Fn(Level, &str) + Send + Sync>;

static HOOK: RwLock<Option<Hook>> = RwLock::new(None);
/// The threshold, 0 without a hook, so that a silent process pays one load a message.
static THRESHOLD: AtomicU32 = AtomicU32::new(0);

/// Sends messages up to `level` to `hook`, from any thread; `None` silences the library.
///
/// When it returns, the previous hook is no longer running and will not be called again.
pub fn set(level: Level, hook: Option<Hook>) {
    let mut slot = HOOK.write().unwrap_or_else(|e| e.into_inner());
    let threshold = if hook.is_some() { level as u32 } else { 0 };
    THRESHOLD.store(threshold, Ordering::Relaxed);
    *slot = hook;
}

/// Whether a message of this level would be seen.
pub(crate) fn enabled(level: Level) -> bool {
    level as u32 <= THRESHOLD.load(Ordering::Relaxed)
}

pub(crate) fn write(level: Level, message: impl FnOnce() -> String) {
    if !enabled(level) {
        return;
    }
    let slot = HOOK.read().unwrap_or_else(|e| e.into_inner());
    if let Some(hook) = &*slot {
        hook(level, &message());
    }
}
