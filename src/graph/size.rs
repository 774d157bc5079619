//! Dimensions that grow with the batch.

use std::fmt;

/// A dimension, or a number of elements: factor * rows^a * times^b, where `times` is 1 or `rows`.
/// It never falls as the batch grows, so what holds at the largest batch holds at every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    factor: u64,
    rows: u8,
    times: u8,
}

impl Size {
    pub(crate) const ONE: Self = Self::constant(1);
    /// Networks in the batch.
    pub(crate) const ROWS: Self = Self {
        rows: 1,
        ..Self::ONE
    };
    /// 1, or a time for every network.
    pub(crate) const TIMES: Self = Self {
        times: 1,
        ..Self::ONE
    };

    pub(crate) const fn constant(factor: u64) -> Self {
        Self {
            factor,
            rows: 0,
            times: 0,
        }
    }

    /// The number, if it is the same for every batch.
    pub(crate) fn number(self) -> Option<u64> {
        (self == Self::constant(self.factor)).then_some(self.factor)
    }

    pub(crate) fn product(sizes: &[Self]) -> Option<Self> {
        sizes
            .iter()
            .try_fold(Self::ONE, |product, size| product.checked_mul(*size))
    }

    pub(crate) fn checked_mul(self, other: Self) -> Option<Self> {
        Some(Self {
            factor: self.factor.checked_mul(other.factor)?,
            rows: self.rows.checked_add(other.rows)?,
            times: self.times.checked_add(other.times)?,
        })
    }

    /// The quotient, if there is no remainder at any batch size.
    pub(crate) fn checked_div(self, other: Self) -> Option<Self> {
        if self.factor.checked_rem(other.factor)? != 0 {
            return None;
        }
        Some(Self {
            factor: self.factor / other.factor,
            rows: self.rows.checked_sub(other.rows)?,
            times: self.times.checked_sub(other.times)?,
        })
    }

    /// The sum of two sizes that grow alike.
    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        let alike = (self.rows, self.times) == (other.rows, other.times);
        let factor = self.factor.checked_add(other.factor).filter(|_| alike)?;
        Some(Self { factor, ..self })
    }

    /// The size that both broadcast to.
    pub(crate) fn broadcast(self, other: Self) -> Option<Self> {
        match (self, other) {
            _ if self == other => Some(self),
            (Self::ONE, size) | (size, Self::ONE) => Some(size),
            (Self::TIMES, Self::ROWS) | (Self::ROWS, Self::TIMES) => Some(Self::ROWS),
            _ => None,
        }
    }

    /// Its value for `rows` networks with a time each; the largest number where that is too large.
    pub(crate) fn at(self, rows: u64) -> u64 {
        let power = u32::from(self.rows) + u32::from(self.times);
        self.factor.saturating_mul(rows.saturating_pow(power))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            factor,
            rows,
            times,
        } = self;
        if *factor != 1 || rows + times == 0 {
            write!(f, "{factor}")?;
        }
        for _ in 0..*rows {
            write!(f, "n")?;
        }
        for _ in 0..*times {
            write!(f, "t")?;
        }
        Ok(())
    }
}

/// A shape for an error message: `[n, 12]`, n the batch, t 1 or the batch.
pub(super) fn shape_text(shape: &[Size]) -> String {
    let sizes: Vec<String> = shape.iter().map(Size::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
