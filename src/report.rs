//! How verbs tell what they are doing, without knowing who listens.

/// Told about progress. All methods may be called from any thread.
pub trait Monitor: Sync {
    /// A step begins; `total` is how many bytes it will take, if that is known.
    fn step(&self, what: &'static str, total: Option<u64>);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// Something that a user who asked for details wants to know.
    fn detail(&self, text: &str);
}

/// Listens to nothing.
pub struct Silent;

impl Monitor for Silent {
    fn step(&self, _: &'static str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn detail(&self, _: &str) {}
}
