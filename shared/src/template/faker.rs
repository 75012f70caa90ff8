//! `${faker.METHOD}`: made-up values under the method names of Python's Faker.
//!
//! A value is drawn from the iteration's keyed random stream, so that the same plan and seed make
//! the same requests on any split. Methods are called without arguments and written as Python's
//! `str` writes their result: `True`, `['a', 'b']`, `2001-05-12 08:09:10`. Values are in English
//! and look like Faker's; they are not the same ones.

mod data;
mod methods;

use crate::fault::nearest;
use crate::rng::KeyedRng;
use methods::METHODS;
use std::convert::Infallible;

/// A method of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(u16);

impl Method {
    /// The method of that name: case counts, as in Python.
    pub(super) fn named(name: &str) -> Option<Self> {
        METHODS.iter().position(|(known, _)| *known == name).map(|index| Self(index as u16))
    }

    /// A new value.
    pub(super) fn make(self, rng: &mut KeyedRng) -> String {
        METHODS[usize::from(self.0)].1(&mut Source(rng))
    }
}

/// The remedy for a name that is no method. The whole list would be a page long.
pub(super) fn remedy(name: &str) -> String {
    let known: Vec<&str> = METHODS.iter().map(|(known, _)| *known).collect();
    let like = "accepted are method names of Python's Faker, like name, email, word, random_int";
    nearest(name, &known).map_or_else(|| like.to_owned(), |best| format!("did you mean `{best}`? {like}"))
}

/// What makes a value.
type Make = fn(&mut Source<'_>) -> String;

/// The iteration's random numbers, for this program and for the `fake` crate.
struct Source<'a>(&'a mut KeyedRng);

impl rand::TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let random = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}

impl Source<'_> {
    /// Uniform, both ends included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// One of the items.
    fn one<'i, T: ?Sized>(&mut self, items: &[&'i T]) -> &'i T {
        items[self.0.below(items.len() as u64) as usize]
    }

    /// So many characters of an alphabet of ASCII.
    fn letters(&mut self, count: usize, alphabet: &[u8]) -> String {
        (0..count).map(|_| char::from(alphabet[self.0.below(alphabet.len() as u64) as usize])).collect()
    }

    /// `pattern` with `#` a digit, `%` a digit but 0, `?` a letter in lower case, `^` a hexadecimal digit.
    fn pattern(&mut self, pattern: &str) -> String {
        let fill = |c| match c {
            '#' => self.letters(1, data::DIGITS),
            '%' => self.letters(1, &data::DIGITS[1..]),
            '?' => self.letters(1, data::LOWER),
            '^' => self.letters(1, data::HEX),
            other => other.to_string(),
        };
        pattern.chars().map(fill).collect()
    }
}

#[cfg(test)]
mod tests;
