//! Numbers of bytes as people give them.

use bytesize::ByteSize;

/// A number of bytes: a number, or a text such as `"64MiB"`, `"1.5 GB"`, `"512k"`.
pub trait ByteAmount {
    /// The bytes, or why this is no number of bytes.
    ///
    /// # Errors
    /// A message for the user.
    fn byte_amount(self) -> Result<u64, String>;
}

impl ByteAmount for u64 {
    fn byte_amount(self) -> Result<u64, String> {
        Ok(self)
    }
}

impl ByteAmount for &str {
    fn byte_amount(self) -> Result<u64, String> {
        let size = self.parse::<ByteSize>();
        size.map(|size| size.as_u64()).map_err(|e| format!("`{self}` is no size such as `64MiB`: {e}"))
    }
}

impl ByteAmount for String {
    fn byte_amount(self) -> Result<u64, String> {
        self.as_str().byte_amount()
    }
}

impl ByteAmount for &String {
    fn byte_amount(self) -> Result<u64, String> {
        self.as_str().byte_amount()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_or_texts() {
        assert_eq!("64MiB".byte_amount(), Ok(64 << 20));
        assert_eq!("1.5 GB".byte_amount(), Ok(1_500_000_000));
        assert_eq!(17_u64.byte_amount(), Ok(17));
        assert!("lots".byte_amount().unwrap_err().contains("`lots`"));
    }
}
