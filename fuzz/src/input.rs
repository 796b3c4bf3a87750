//! An input read part by part, where it is more than one text.

/// What is left of an input. Where it ends early it goes on with zeroes and empty parts.
#[derive(Debug, Clone, Copy)]
pub struct Input<'d>(pub &'d [u8]);

impl<'d> Input<'d> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Two bytes, big-endian.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A part that begins with its length in one byte.
    pub fn part(&mut self) -> &'d [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    /// A part that begins with its length in two bytes.
    pub fn long_part(&mut self) -> &'d [u8] {
        let length = self.short();
        self.take(length.into())
    }
}
