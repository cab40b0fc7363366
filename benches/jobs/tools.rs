//! The tools that are compared: how each is asked for the same thing.
//!
//! Every script is run by bash with `$SRC`, `$STORE`, `$HOME` (empty at first), `$TARGET` (a new directory), `$LABEL`
//! (of the run: `g0` is the first) and `$RUN` (its number, from 0). Tools are used as their manuals show for a nightly job; compression is zstd
//! at level 3 wherever it can be chosen, encryption is off wherever it can be.

use super::measure::quiet;

/// How to use a tool.
pub struct Tool {
    /// What it is called in the results.
    pub name: &'static str,
    /// Prints its version, or fails if it is not there.
    pub version: &'static str,
    /// Makes the store; not measured.
    pub init: &'static str,
    /// Backs `$SRC` up.
    pub backup: &'static str,
    /// Restores the newest version into `$TARGET`, or a directory below it.
    pub newest: &'static str,
    /// Restores the first version; empty if the tool keeps only one, and is asked for a first backup and its
    /// restoration only.
    pub oldest: &'static str,
    /// Reads everything back and checks it; empty if the tool cannot.
    pub verify: &'static str,
}

/// Ours, then the peers.
pub const TOOLS: [Tool; 8] = [
    Tool {
        name: "btw-backup",
        version: "$BTW --version",
        init: "mkdir -p $HOME/.btw-backup && echo ROOT_PATH = \\\"$STORE\\\" > $HOME/.btw-backup/config.toml && $BTW fs-init --type rdiff $SRC data",
        backup: "$BTW fs -q $SRC data",
        newest: "$BTW restore -q data $TARGET/out",
        oldest: "$BTW restore -q --at v1 data $TARGET/out",
        verify: "$BTW verify -q --deep data",
    },
    Tool {
        name: "restic",
        version: "restic version",
        init: "restic init",
        backup: "cd $SRC && restic backup -q --tag $LABEL .",
        newest: "restic restore -q latest --target $TARGET",
        oldest: "restic restore -q latest --tag g0 --target $TARGET",
        verify: "restic check -q --read-data",
    },
    Tool {
        name: "borg",
        version: "borg --version",
        init: "borg init -e none $STORE/borg",
        backup: "cd $SRC && borg create --compression zstd,3 $STORE/borg::$LABEL .",
        newest: "cd $TARGET && borg extract $STORE/borg::$(borg list --last 1 --short $STORE/borg)",
        oldest: "cd $TARGET && borg extract $STORE/borg::g0",
        verify: "borg check --verify-data $STORE/borg",
    },
    Tool {
        name: "rdiff-backup",
        version: "rdiff-backup --version",
        init: "true",
        backup: "rdiff-backup -v1 backup $SRC $STORE/rdiff",
        newest: "rdiff-backup -v1 restore --at now $STORE/rdiff $TARGET/out",
        oldest: "rdiff-backup -v1 restore --at ${RUN}B $STORE/rdiff $TARGET/out",
        verify: "rdiff-backup -v1 verify $STORE/rdiff",
    },
    Tool {
        name: "rustic",
        version: "rustic --version",
        init: "rustic init",
        backup: "cd $SRC && rustic --no-progress backup --tag $LABEL .",
        newest: "rustic --no-progress restore latest $TARGET",
        oldest: "rustic --no-progress --filter-tags g0 restore latest $TARGET",
        verify: "rustic --no-progress check --read-data",
    },
    Tool {
        name: "bupstash",
        version: "bupstash --version",
        init: "bupstash init && bupstash new-key -o $HOME/key",
        backup: "bupstash put -q -k $HOME/key --send-log $HOME/sendlog label=$LABEL job=data $SRC",
        newest: "bupstash restore -q -k $HOME/key --into $TARGET id=$(bupstash list -k $HOME/key --format jsonl1 | tail -1 | sed 's/.*\"id\":\"\\([0-9a-f]*\\)\".*/\\1/')",
        oldest: "bupstash restore -q -k $HOME/key --into $TARGET label=g0",
        verify: "",
    },
    Tool {
        name: "conserve",
        version: "conserve --version",
        init: "conserve init $STORE/conserve",
        backup: "conserve backup --no-stats $STORE/conserve $SRC",
        newest: "conserve restore --no-stats $STORE/conserve $TARGET",
        oldest: "conserve restore --no-stats -b b0000 $STORE/conserve $TARGET",
        verify: "conserve validate --no-stats $STORE/conserve",
    },
    Tool {
        name: "tar+zstd",
        version: "zstd --version && tar --version | head -1",
        init: "true",
        backup: "tar -C $SRC -cS . | zstd -q -3 -T0 -f -o $STORE/data.tar.zst",
        newest: "zstd -q -dc $STORE/data.tar.zst | tar -C $TARGET -x",
        oldest: "",
        verify: "zstd -q -t $STORE/data.tar.zst",
    },
];

/// A tool by itself: makes a delta from `$NEW` to `$OLD` at `$DELTA` (in the direction in which ours go).
pub struct DeltaTool {
    /// What it is called in the results.
    pub name: &'static str,
    /// Fails if it is not there.
    pub version: &'static str,
    /// Makes the delta.
    pub make: &'static str,
    /// Compressed by `zstd -3` before its length counts.
    pub compress: bool,
    /// The longest file that it is tried with: some need many times that in memory.
    pub max_bytes: u64,
}

/// The delta tools.
pub const DELTA_TOOLS: [DeltaTool; 4] = [
    DeltaTool {
        name: "rdiff signature+delta",
        version: "rdiff --version",
        make: "rdiff -f signature $NEW $DELTA.sig && rdiff -f delta $DELTA.sig $OLD $DELTA && rm $DELTA.sig",
        compress: true,
        max_bytes: u64::MAX,
    },
    DeltaTool {
        name: "xdelta3 -1",
        version: "xdelta3 -V",
        make: "xdelta3 -f -1 -S none -e -s $NEW $OLD $DELTA",
        compress: true,
        max_bytes: u64::MAX,
    },
    DeltaTool {
        name: "xdelta3 -9",
        version: "xdelta3 -V",
        make: "xdelta3 -f -9 -S none -B 268435456 -e -s $NEW $OLD $DELTA",
        compress: true,
        max_bytes: 256 << 20,
    },
    DeltaTool {
        name: "bsdiff",
        version: "which bsdiff",
        make: "bsdiff $NEW $OLD $DELTA",
        compress: false,
        max_bytes: 64 << 20,
    },
];

/// What a program says of its version, `None` if it is not on this machine.
pub fn version(script: &str, btw: &str) -> Option<String> {
    let env = [("BTW".to_owned(), btw.to_owned())];
    let said = quiet(&format!("({script}) 2>&1"), &env).ok()?;
    Some(said.lines().next().unwrap_or_default().trim().to_owned())
}
