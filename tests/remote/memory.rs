//! A remote in memory: the shortest that does what all must do.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use btw_backup::error::{RemoteError, RemoteFault};
use btw_backup::remote::{Entry, FarDigests, Put, Remote};

#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

fn error(op: &'static str, path: &str, fault: RemoteFault) -> RemoteError {
    RemoteError {
        op,
        path: path.to_owned(),
        remote: "memory".to_owned(),
        detail: format!("{fault:?}"),
        fault,
    }
}

impl Remote for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, RemoteError> {
        let files = self.0.lock().unwrap();
        let found = files.iter().filter(|(path, _)| path.starts_with(prefix));
        let entry = |(path, content): (&String, &Vec<u8>)| Entry {
            path: path.clone(),
            len: content.len() as u64,
        };
        Ok(found.map(entry).collect())
    }

    fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, RemoteError> {
        let files = self.0.lock().unwrap();
        let content = files
            .get(path)
            .ok_or_else(|| error("read", path, RemoteFault::Missing))?;
        let range = range.map_or(0..content.len(), |range| {
            usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
        });
        let part = content.get(range).map(<[u8]>::to_vec);
        part.ok_or_else(|| error("read", path, RemoteFault::Other))
    }

    fn write(&self, path: &str, content: &[u8], put: Put) -> Result<(), RemoteError> {
        let mut files = self.0.lock().unwrap();
        if put == Put::New && files.contains_key(path) {
            return Err(error("write", path, RemoteFault::Exists));
        }
        files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), RemoteError> {
        self.0.lock().unwrap().remove(path);
        Ok(())
    }

    fn digests(&self, _: &[String]) -> Result<Option<FarDigests>, RemoteError> {
        Ok(None)
    }
}
