//! The HDF5 that the format needs and the crate `hdf5-pure` can't write: compounds with sequences of variable length.
//! Groups, contiguous datasets and the global heap (HDF5 File Format Specification, version 3).

/// No address.
const NOWHERE: [u8; 8] = [0xff; 8];
/// A collection of the heap is closed when it holds this much.
const COLLECTION: usize = 1 << 20;
/// The least size of a collection.
const LEAST: usize = 4096;

/// The encoding of a datatype, which tells the size of its elements.
#[derive(Clone)]
pub(super) struct Type(Vec<u8>);

impl Type {
    fn new(class: u8, flags: [u8; 3], size: u32, properties: &[u8]) -> Self {
        Self([&[class][..], &flags, &size.to_le_bytes(), properties].concat())
    }

    fn size(&self) -> u32 {
        u32::from_le_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// A little-endian integer of this many bytes.
    pub(super) fn integer(size: u32, signed: bool) -> Self {
        let bits = (8 * size as u16).to_le_bytes();
        Self::new(0x10, [if signed { 8 } else { 0 }, 0, 0], size, &[0, 0, bits[0], bits[1]])
    }

    /// A little-endian number in single precision: sign at bit 31, exponent of 8 bits from bit 23 with bias 127.
    pub(super) fn float() -> Self {
        Self::new(0x11, [0x20, 31, 0], 4, &[0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0])
    }

    /// `count` elements in a row.
    pub(super) fn array(&self, count: u32) -> Self {
        let properties = [&[1][..], &count.to_le_bytes(), &self.0].concat();
        Self::new(0x3a, [0; 3], count * self.size(), &properties)
    }

    /// A sequence of any length, which lies in the heap.
    pub(super) fn sequence(&self) -> Self {
        Self::new(0x19, [0; 3], 16, &self.0)
    }

    /// A text of any length in UTF-8, which lies in the heap.
    pub(super) fn text() -> Self {
        Self::new(0x19, [1, 1, 0], 16, &Self::integer(1, false).0)
    }

    /// Named members without gaps between them.
    pub(super) fn compound(members: &[(&str, Self)]) -> Self {
        let size: u32 = members.iter().map(|(_, member)| member.size()).sum();
        // Offsets take as many bytes as the size of the whole.
        let width = if size < 256 { 1 } else { 2 };
        let (mut properties, mut offset) = (Vec::new(), 0u32);
        for (name, member) in members {
            properties.extend(name.bytes().chain([0]));
            properties.extend(&offset.to_le_bytes()[..width]);
            properties.extend(&member.0);
            offset += member.size();
        }
        Self::new(0x36, [members.len() as u8, 0, 0], size, &properties)
    }
}

/// A file in the making: the superblock, and what was put behind it.
pub(super) struct File {
    bytes: Vec<u8>,
    /// The collection of the heap that is being filled; it will start where `bytes` ends.
    heap: Vec<u8>,
    objects: u16,
}

impl File {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; 96], heap: Vec::new(), objects: 0 }
    }

    /// Puts `length` elements into the heap, and gives the reference to them.
    pub(super) fn store(&mut self, length: u32, elements: &[u8]) -> [u8; 16] {
        let mut reference = [0; 16];
        if length == 0 {
            return reference;
        }
        if self.heap.is_empty() {
            self.heap.extend(b"GCOL\x01\0\0\0");
            self.heap.extend([0; 8]);
        }
        self.objects += 1;
        reference[..4].copy_from_slice(&length.to_le_bytes());
        reference[4..12].copy_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        reference[12..].copy_from_slice(&u32::from(self.objects).to_le_bytes());
        self.heap.extend(self.objects.to_le_bytes());
        self.heap.extend([1, 0, 0, 0, 0, 0]);
        self.heap.extend((elements.len() as u64).to_le_bytes());
        self.heap.extend(elements);
        pad(&mut self.heap);
        if self.heap.len() > COLLECTION || self.objects == u16::MAX {
            self.close();
        }
        reference
    }

    /// Writes the collection that is being filled.
    fn close(&mut self) {
        let mut heap = std::mem::take(&mut self.heap);
        self.objects = 0;
        if heap.is_empty() {
            return;
        }
        let rest = LEAST.saturating_sub(heap.len());
        if rest >= 16 {
            // Object 0 is what is free.
            heap.extend([0; 8]);
            heap.extend((rest as u64).to_le_bytes());
        }
        heap.resize(heap.len().max(LEAST), 0);
        let size = (heap.len() as u64).to_le_bytes();
        heap[8..16].copy_from_slice(&size);
        self.bytes.extend(heap);
    }

    /// Appends bytes, and gives their address.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.close();
        let address = self.bytes.len() as u64;
        self.bytes.extend(bytes);
        pad(&mut self.bytes);
        address
    }

    /// A dataset of one axis; gives its address.
    pub(super) fn dataset(&mut self, kind: &Type, elements: &[u8]) -> u64 {
        let address = self.put(elements);
        let count = elements.len() as u64 / u64::from(kind.size());
        let space = [&[1, 1, 0, 0, 0, 0, 0, 0][..], &count.to_le_bytes()].concat();
        let place = [&[3, 1][..], &address.to_le_bytes(), &(elements.len() as u64).to_le_bytes()].concat();
        // The fill value: space is there from the start, no value is defined.
        let messages = [(1, &space[..]), (3, &kind.0[..]), (5, &[2, 1, 2, 0][..]), (8, &place[..])];
        self.object(&messages)
    }

    /// A group of named objects; gives its address.
    pub(super) fn group(&mut self, members: &[(&str, u64)]) -> u64 {
        let links: Vec<Vec<u8>> = members
            .iter()
            .map(|(name, at)| [&[1, 0, name.len() as u8][..], name.as_bytes(), &at.to_le_bytes()].concat())
            .collect();
        // The links lie in the header itself, not in a heap with an index.
        let info = [&[0, 0][..], &NOWHERE, &NOWHERE].concat();
        let mut messages = vec![(2, &info[..]), (10, &[0, 0][..])];
        messages.extend(links.iter().map(|link| (6, &link[..])));
        self.object(&messages)
    }

    /// An object header of these messages (type, contents).
    fn object(&mut self, messages: &[(u16, &[u8])]) -> u64 {
        let mut body = Vec::new();
        for (kind, contents) in messages {
            body.extend(kind.to_le_bytes());
            body.extend((contents.len().next_multiple_of(8) as u16).to_le_bytes());
            body.extend([0; 4]);
            body.extend(*contents);
            pad(&mut body);
        }
        let mut header = vec![1, 0];
        header.extend((messages.len() as u16).to_le_bytes());
        header.extend(1u32.to_le_bytes());
        header.extend((body.len() as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(body);
        self.put(&header)
    }

    /// The whole file, with this group as its root.
    pub(super) fn finish(mut self, root: u64) -> Vec<u8> {
        self.close();
        let mut head = b"\x89HDF\r\n\x1a\n".to_vec();
        // Versions; addresses and lengths of 8 bytes; sizes of the nodes of trees, of which there are none.
        head.extend([0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]);
        head.extend(0u64.to_le_bytes());
        head.extend(NOWHERE);
        head.extend((self.bytes.len() as u64).to_le_bytes());
        head.extend(NOWHERE);
        head.extend(0u64.to_le_bytes());
        head.extend(root.to_le_bytes());
        self.bytes[..head.len()].copy_from_slice(&head);
        self.bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}
