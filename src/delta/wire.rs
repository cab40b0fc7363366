//! The byte form of a script: the delta format of librsync, read by `rdiff patch`.
//!
//! Magic 0x72730236 (big-endian), then commands, then END (0x00). A literal is 0x01..=0x40 (that many bytes follow) or
//! 0x41..=0x44 with a length of 1, 2, 4 or 8 bytes; a copy is 0x45 + 4 x (width of offset) + (width of length), widths
//! numbered 0..=3 for 1, 2, 4, 8 bytes. All numbers are big-endian.
//! Source: librsync, `src/command.h`, `src/prototab.h` and its documentation of the format.

use super::script::{Piece, Script};

/// The first four bytes of every delta.
pub const MAGIC: [u8; 4] = [0x72, 0x73, 0x02, 0x36];
const END: u8 = 0;
const LITERAL_INLINE_MAX: u8 = 0x40;
const LITERAL_N1: u8 = 0x41;
const COPY_N1_N1: u8 = 0x45;
const COPY_N8_N8: u8 = 0x54;

/// Why bytes are not a delta.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It does not begin with [`MAGIC`].
    #[error("Not a delta: wrong magic number")]
    Magic,
    /// It ends within a command or without END.
    #[error("The delta ends too early, at byte {at}")]
    Truncated {
        /// Where the incomplete command begins.
        at: usize,
    },
    /// A command that librsync does not define.
    #[error("Unknown command 0x{command:02x} at byte {at}")]
    Command {
        /// The command.
        command: u8,
        /// Where it stands.
        at: usize,
    },
    /// A command that produces nothing; librsync's own patch hangs on a copy of no bytes.
    #[error("Command of length 0 at byte {at}")]
    Empty {
        /// Where it stands.
        at: usize,
    },
    /// A copy whose end does not fit in 63 bits, or output that does not.
    #[error("Offset or length out of range at byte {at}")]
    Range {
        /// Where the command stands.
        at: usize,
    },
    /// Bytes after END.
    #[error("{count} bytes follow the end of the delta")]
    Trailing {
        /// How many.
        count: usize,
    },
}

/// Which ends of a delta a part of it has: a delta may be cut between commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// It begins with the magic number.
    pub first: bool,
    /// It ends with END.
    pub last: bool,
}

/// A delta in one piece.
pub const WHOLE: Part = Part {
    first: true,
    last: true,
};

/// The whole delta of a script.
pub fn encode(script: &Script) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for piece in script.pieces() {
        encode_piece(piece, &mut out);
    }
    encode_end(&mut out);
    out
}

/// Appends one command, in its shortest form.
pub fn encode_piece(piece: Piece<'_>, out: &mut Vec<u8>) {
    match piece {
        Piece::Copy { offset, len } => {
            out.push(COPY_N1_N1 + 4 * width(offset) + width(len));
            put_number(offset, out);
            put_number(len, out);
        }
        Piece::Literal(bytes) => {
            let len = bytes.len() as u64;
            match u8::try_from(len) {
                Ok(short) if short <= LITERAL_INLINE_MAX => out.push(short),
                _ => {
                    out.push(LITERAL_N1 + width(len));
                    put_number(len, out);
                }
            }
            out.extend_from_slice(bytes);
        }
    }
}

/// Appends the END command.
pub fn encode_end(out: &mut Vec<u8>) {
    out.push(END);
}

fn width(value: u64) -> u8 {
    match value {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

fn put_number(value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    out.extend_from_slice(&bytes[8 - (1 << width(value))..]);
}

/// Reads a delta, or a part of one cut between commands. The literals stay where they are in `bytes`.
pub fn decode(bytes: Vec<u8>, part: Part) -> Result<Script, WireError> {
    let mut at = 0;
    if part.first {
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(WireError::Magic);
        }
        at = 4;
    }
    let mut script = Script::over(bytes);
    loop {
        let Some(&command) = script.bytes().get(at) else {
            return if part.last {
                Err(WireError::Truncated { at })
            } else {
                Ok(script)
            };
        };
        if command == END {
            return end(script, at, part);
        }
        at = decode_command(&mut script, command, at)?;
    }
}

fn end(script: Script, at: usize, part: Part) -> Result<Script, WireError> {
    let count = script.bytes().len() - at - 1;
    match (part.last, count) {
        (true, 0) => Ok(script),
        (true, count) => Err(WireError::Trailing { count }),
        (false, _) => Err(WireError::Command { command: END, at }),
    }
}

/// Adds the command at `at` to the script and returns where the next one begins.
fn decode_command(script: &mut Script, command: u8, at: usize) -> Result<usize, WireError> {
    let mut next = at + 1;
    let mut number = |width: u8| {
        take_number(script.bytes(), &mut next, width).ok_or(WireError::Truncated { at })
    };
    match command {
        0x01..=LITERAL_INLINE_MAX => decode_literal(script, u64::from(command), next, at),
        LITERAL_N1..COPY_N1_N1 => {
            let len = number(command - LITERAL_N1)?;
            decode_literal(script, len, next, at)
        }
        COPY_N1_N1..=COPY_N8_N8 => {
            let offset = number((command - COPY_N1_N1) / 4)?;
            let len = number((command - COPY_N1_N1) % 4)?;
            if len == 0 {
                return Err(WireError::Empty { at });
            }
            let end = offset
                .checked_add(len)
                .filter(|end| i64::try_from(*end).is_ok());
            check_output(script, len, end.is_some(), at)?;
            script.copy(offset, len);
            Ok(next)
        }
        _ => Err(WireError::Command { command, at }),
    }
}

fn decode_literal(
    script: &mut Script,
    len: u64,
    start: usize,
    at: usize,
) -> Result<usize, WireError> {
    if len == 0 {
        return Err(WireError::Empty { at });
    }
    let end = usize::try_from(len)
        .ok()
        .and_then(|len| start.checked_add(len));
    let end = end
        .filter(|end| *end <= script.bytes().len())
        .ok_or(WireError::Truncated { at })?;
    check_output(script, len, true, at)?;
    script.literal_at(start, end - start);
    Ok(end)
}

fn check_output(script: &Script, len: u64, copy_fits: bool, at: usize) -> Result<(), WireError> {
    let fits = script
        .output_bytes()
        .checked_add(len)
        .is_some_and(|end| i64::try_from(end).is_ok());
    if fits && copy_fits {
        Ok(())
    } else {
        Err(WireError::Range { at })
    }
}

fn take_number(bytes: &[u8], at: &mut usize, width: u8) -> Option<u64> {
    let end = *at + (1 << width);
    let value = bytes
        .get(*at..end)?
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    *at = end;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::{Part, Script, WHOLE, WireError, decode, encode};
    use proptest::prelude::{Strategy, any, prop, proptest};

    fn scripts() -> impl Strategy<Value = Script> {
        let op = (
            any::<bool>(),
            0_u64..1 << 40,
            1_u64..100_000,
            prop::collection::vec(any::<u8>(), 1..300),
        );
        prop::collection::vec(op, 0..20).prop_map(|ops| {
            let mut script = Script::new();
            for (copy, offset, len, bytes) in ops {
                if copy {
                    script.copy(offset, len);
                } else {
                    script.literal(&bytes);
                }
            }
            script
        })
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(script in scripts()) {
            let decoded = decode(encode(&script), WHOLE).unwrap();
            assert_eq!(decoded.pieces().collect::<Vec<_>>(), script.pieces().collect::<Vec<_>>());
        }

        #[test]
        fn a11_any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic: bool, last: bool) {
            if magic {
                bytes.splice(0..0, super::MAGIC);
            }
            if let Ok(script) = decode(bytes.clone(), Part { first: magic, last }) {
                assert!(script.memory_bytes() <= bytes.len() * 33);
                assert!(script.pieces().all(|piece| piece.output_bytes() > 0));
            }
        }

        #[test]
        fn a12_a_truncated_delta_is_refused(script in scripts(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&script);
            let cut = cut.index(bytes.len());
            assert!(decode(bytes[..cut].to_vec(), WHOLE).is_err());
        }
    }

    #[test]
    fn a11_commands_that_harm_other_readers_are_refused() {
        let with = |tail: &[u8]| decode([&super::MAGIC[..], tail].concat(), WHOLE).map(|_| ());
        assert_eq!(with(&[0x45, 0, 0, 0]), Err(WireError::Empty { at: 4 }));
        assert_eq!(with(&[0x41, 0, 0]), Err(WireError::Empty { at: 4 }));
        assert_eq!(
            with(&[0x55, 0]),
            Err(WireError::Command {
                command: 0x55,
                at: 4
            })
        );
        assert_eq!(with(&[0, 1]), Err(WireError::Trailing { count: 1 }));
        let far = [&[0x54][..], &[0xff; 8], &[0, 0, 0, 0, 0, 0, 0, 9], &[0]].concat();
        assert_eq!(with(&far), Err(WireError::Range { at: 4 }));
        let huge = [&[0x44][..], &[0x7f; 8], &[1, 2, 3]].concat();
        assert_eq!(with(&huge), Err(WireError::Truncated { at: 4 }));
        assert_eq!(
            decode(b"tar?".to_vec(), WHOLE).map(|_| ()),
            Err(WireError::Magic)
        );
    }
}
