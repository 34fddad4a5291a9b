//! A walk over the elements of a DICOM file that checks every declared length against the bytes that are
//! left, so that a corrupt length can't ask the parser for gigabytes (PS3.5, sections 7.1 and 7.5).

const UNDEFINED: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Syntax {
    explicit: bool,
    big: bool,
}

/// An error where an element claims to be longer than the rest of the file.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.get(128..132) != Some(b"DICM") {
        return Err("not a DICOM file: no DICM after the preamble".into());
    }
    let meta = Syntax { explicit: true, big: false };
    let mut walk = Walk { bytes, at: 132, syntax: meta, syntax_uid: String::new() };
    walk.run(true)?;
    walk.syntax = match walk.syntax_uid.as_str() {
        "1.2.840.10008.1.2" => Syntax { explicit: false, big: false },
        "1.2.840.10008.1.2.2" => Syntax { explicit: true, big: true },
        // Deflated: the elements can't be seen without inflating them.
        "1.2.840.10008.1.2.1.99" => return Ok(()),
        _ => meta,
    };
    walk.run(false)
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    syntax: Syntax,
    syntax_uid: String,
}

impl Walk<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        let w = self.bytes.get(at..at + 2)?;
        Some(if self.syntax.big {
            u16::from_be_bytes([w[0], w[1]])
        } else {
            u16::from_le_bytes([w[0], w[1]])
        })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let w = self.bytes.get(at..at + 4)?;
        let w = [w[0], w[1], w[2], w[3]];
        Some(if self.syntax.big { u32::from_be_bytes(w) } else { u32::from_le_bytes(w) })
    }

    /// Walks the file's meta group, or everything from here on.
    fn run(&mut self, meta: bool) -> Result<(), String> {
        let mut in_fragments = false;
        while self.at < self.bytes.len() {
            let truncated = || format!("truncated in the header of an element at byte {}", self.at);
            let group = self.short(self.at).ok_or_else(truncated)?;
            let element = self.short(self.at + 2).ok_or_else(truncated)?;
            if meta && group != 2 {
                return Ok(());
            }
            let (start, length, nested) = self.element(group).ok_or_else(truncated)?;
            let nested = nested || length == UNDEFINED || (group == 0xfffe && !in_fragments);
            let left = self.bytes.len().saturating_sub(start);
            if length != UNDEFINED && length as usize > left {
                return Err(format!(
                    "truncated or corrupt: element ({group:04X},{element:04X}) claims {length} bytes, {left} are left"
                ));
            }
            if meta && (group, element) == (2, 0x10) {
                let end = start.saturating_add(length as usize);
                let uid = self.bytes.get(start..end).ok_or("the transfer syntax has no length")?;
                self.syntax_uid = String::from_utf8_lossy(uid).trim_matches([' ', '\0']).to_string();
            }
            if (group, element) == (0x7fe0, 0x10) {
                in_fragments = length == UNDEFINED;
            }
            self.at = if nested { start } else { start + length as usize };
        }
        Ok(())
    }

    /// Where the value of the element here starts, how long it claims to be, and whether it holds elements.
    fn element(&self, group: u16) -> Option<(usize, u32, bool)> {
        // Items and delimiters have no type.
        if group == 0xfffe || !self.syntax.explicit {
            let start = self.at + 8;
            let holds_items = self.short(start) == Some(0xfffe) && self.short(start + 2) == Some(0xe000);
            return Some((start, self.long(self.at + 4)?, group != 0xfffe && holds_items));
        }
        let kind = self.bytes.get(self.at + 4..self.at + 6)?;
        const SHORT: [&[u8; 2]; 21] = [
            b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH",
            b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
        ];
        if SHORT.iter().any(|short| *short == kind) {
            return Some((self.at + 8, u32::from(self.short(self.at + 6)?), false));
        }
        // All others, unknown ones too, have four bytes of length after two that are reserved.
        Some((self.at + 12, self.long(self.at + 8)?, kind == b"SQ"))
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_transfer_syntax_without_a_length_is_refused() {
        let mut file = vec![0; 128];
        file.extend_from_slice(b"DICM\x02\0\x10\0OB\0\0\xff\xff\xff\xff1.2.840");
        assert_eq!(check(&file).unwrap_err(), "the transfer syntax has no length");
    }
}
