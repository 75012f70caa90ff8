//! Functions of numbers.

use super::{Answer, CommandError, Given, operands, overflow, type_error, value_error};
use crate::script::type_name;
use serde_json::{Value, json};

/// A number as Python has it: true is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Int(i128::from(*b))),
            Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(int), ..) => Some(Self::Int(int.into())),
                (None, Some(int), _) => Some(Self::Int(int.into())),
                (None, None, float) => float.map(Self::Float),
            },
            _ => None,
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    pub(super) fn value(self) -> Answer {
        let too_large = || overflow("the result is too large: whole numbers have 64 bits here");
        match self {
            Self::Int(int) => match (i64::try_from(int), u64::try_from(int)) {
                (Ok(int), _) => Ok(int.into()),
                (_, Ok(int)) => Ok(int.into()),
                _ => Err(too_large()),
            },
            Self::Float(float) if float.is_finite() => Ok(float.into()),
            Self::Float(_) => Err(overflow("(34, 'Numerical result out of range')")),
        }
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, CommandError> {
        Ok(match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.checked_add(b).ok_or_else(unbounded)?),
            (a, b) => Self::Float(a.float() + b.float()),
        })
    }
}

fn unbounded() -> CommandError {
    overflow("the result is too large: whole numbers have 64 bits here")
}

/// A whole number, as functions take it that count.
pub(super) fn index(value: &Value) -> Result<i128, CommandError> {
    match Number::of(value) {
        Some(Number::Int(int)) => Ok(int),
        _ => Err(type_error(format!("'{}' object cannot be interpreted as an integer", type_name(value)))),
    }
}

pub(super) fn abs(given: &Given) -> Answer {
    let value = given.first()?;
    match Number::of(value) {
        Some(Number::Int(int)) => Number::Int(int.abs()).value(),
        Some(Number::Float(float)) => Number::Float(float.abs()).value(),
        None => Err(type_error(format!("bad operand type for abs(): '{}'", type_name(value)))),
    }
}

fn radix(given: &Given, prefix: &str, write: fn(u128) -> String) -> Answer {
    let int = index(given.first()?)?;
    let sign = if int < 0 { "-" } else { "" };
    Ok(format!("{sign}{prefix}{}", write(int.unsigned_abs())).into())
}

pub(super) fn bin(given: &Given) -> Answer {
    radix(given, "0b", |n| format!("{n:b}"))
}

pub(super) fn oct(given: &Given) -> Answer {
    radix(given, "0o", |n| format!("{n:o}"))
}

pub(super) fn hex(given: &Given) -> Answer {
    radix(given, "0x", |n| format!("{n:x}"))
}

/// The quotient is rounded down, the remainder has the sign of the divisor.
pub(super) fn divmod(given: &Given) -> Answer {
    let (a, b) = (given.first()?, given.must(1, "")?);
    let (quotient, remainder) = match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(_)), Some(Number::Int(0))) => {
            return Err(CommandError::failed("ZeroDivisionError", "integer division or modulo by zero"));
        }
        (Some(Number::Int(a)), Some(Number::Int(b))) => {
            let down = i128::from(a % b != 0 && (a < 0) != (b < 0));
            let quotient = a / b - down;
            (Number::Int(quotient), Number::Int(a - quotient * b))
        }
        (Some(a), Some(b)) => {
            let (a, b) = (a.float(), b.float());
            if b == 0.0 {
                return Err(CommandError::failed("ZeroDivisionError", "float divmod()"));
            }
            let mut remainder = a % b;
            let mut quotient = (a - remainder) / b;
            if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) {
                remainder += b;
                quotient -= 1.0;
            } else if remainder == 0.0 {
                remainder = 0.0_f64.copysign(b);
            }
            (Number::Float(quotient.round()), Number::Float(remainder))
        }
        _ => return Err(operands("divmod()", a, b)),
    };
    Ok(json!([quotient.value()?, remainder.value()?]))
}

pub(super) fn pow(given: &Given) -> Answer {
    let (base, exponent) = (given.must(0, "base")?, given.must(1, "exp")?);
    let modulus = given.get(2, "mod").filter(|modulus| !modulus.is_null());
    let (Some(a), Some(b)) = (Number::of(base), Number::of(exponent)) else {
        return Err(operands("** or pow()", base, exponent));
    };
    if let Some(modulus) = modulus {
        let (Number::Int(a), Number::Int(b), Some(Number::Int(m))) = (a, b, Number::of(modulus)) else {
            return Err(type_error("pow() 3rd argument not allowed unless all arguments are integers"));
        };
        return Number::Int(modular(a, b, m)?).value();
    }
    let zero = || CommandError::failed("ZeroDivisionError", "0.0 cannot be raised to a negative power");
    match (a, b) {
        (Number::Int(a), Number::Int(b)) if b >= 0 => {
            let exponent = match u32::try_from(b) {
                Ok(exponent) => exponent,
                Err(_) if matches!(a, -1..=1) => u32::from(b % 2 != 0) + 2,
                Err(_) => return Err(unbounded()),
            };
            Number::Int(a.checked_pow(exponent).ok_or_else(unbounded)?).value()
        }
        (a, b) => {
            let (a, b) = (a.float(), b.float());
            if a == 0.0 && b < 0.0 {
                return Err(zero());
            }
            if a < 0.0 && b.fract() != 0.0 {
                return Err(value_error("the result is a complex number, which JSON does not have"));
            }
            Number::Float(a.powf(b)).value()
        }
    }
}

fn modular(base: i128, exponent: i128, modulus: i128) -> Result<i128, CommandError> {
    if modulus == 0 {
        return Err(value_error("pow() 3rd argument cannot be 0"));
    }
    // 64-bit values: products fit into 128 bits
    let m = modulus.abs();
    let mut base = base.rem_euclid(m);
    if exponent < 0 {
        base = inverse(base, m).ok_or_else(|| value_error("base is not invertible for the given modulus"))?;
    }
    let (mut result, mut left) = (1 % m, exponent.unsigned_abs());
    while left > 0 {
        if left & 1 == 1 {
            result = result * base % m;
        }
        base = base * base % m;
        left >>= 1;
    }
    Ok(if modulus < 0 && result != 0 { result - m } else { result })
}

/// The number whose product with `a` leaves 1.
fn inverse(a: i128, m: i128) -> Option<i128> {
    let (mut r, mut next_r) = (m, a);
    let (mut t, mut next_t) = (0, 1);
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (t, next_t) = (next_t, t - quotient * next_t);
    }
    (r == 1).then(|| t.rem_euclid(m))
}

/// Halves go to even. Decimals are those of the exact value, so 2.675 becomes 2.67.
pub(super) fn round(given: &Given) -> Answer {
    let value = given.must(0, "number")?;
    let digits = match given.get(1, "ndigits").filter(|digits| !digits.is_null()) {
        Some(digits) => Some(index(digits)?),
        None => None,
    };
    match (Number::of(value), digits) {
        (Some(Number::Int(int)), None | Some(0..)) => Number::Int(int).value(),
        (Some(Number::Int(int)), Some(digits)) => Number::Int(to_tens(int, 0.0, digits)).value(),
        (Some(Number::Float(float)), None) => whole(float.round_ties_even()).value(),
        (Some(Number::Float(float)), Some(digits @ 0..)) => {
            // a double has no more decimals than that
            let text = format!("{float:.0$}", usize::try_from(digits).unwrap_or(usize::MAX).min(1_100));
            Number::Float(text.parse().unwrap_or(float)).value()
        }
        (Some(Number::Float(float)), Some(digits)) => {
            if float.abs() >= 1e30 {
                return Number::Float(float).value();
            }
            Number::Float(to_tens(float.trunc() as i128, float.fract(), digits) as f64).value()
        }
        (None, _) => Err(type_error(format!("type {} doesn't define __round__ method", type_name(value)))),
    }
}

fn whole(float: f64) -> Number {
    // beyond this there is no such whole number of 64 bits: the value says so
    Number::Int(float as i128)
}

/// `int + fract` rounded to `10^-digits`, `digits` below 0.
fn to_tens(int: i128, fract: f64, digits: i128) -> i128 {
    let power = u32::try_from(-digits).ok().and_then(|digits| 10_i128.checked_pow(digits));
    let Some(power) = power else { return 0 };
    let down = int.div_euclid(power) * power;
    let rest = int.rem_euclid(power);
    let half = power / 2;
    let above = rest > half || (rest == half && fract > 0.0);
    let tie = rest == half && fract == 0.0;
    if above || (tie && (down / power) % 2 != 0) { down + power } else { down }
}

/// Equal numbers have equal hashes, whatever their type. Source: Python's manual, "Hashing of
/// numeric types". Python mixes a random number into hashes of texts; here they are the same in
/// every run.
pub(super) fn hash(given: &Given) -> Answer {
    const MODULUS: i128 = (1 << 61) - 1;
    let value = given.first()?;
    let hash = match (Number::of(value), value) {
        (Some(Number::Int(int)), _) => int.signum() * (int.abs() % MODULUS),
        (Some(Number::Float(float)), _) => hash_float(float),
        (None, Value::Null) => 0x_fca8_6420,
        (None, Value::String(text)) => {
            let digest = ld_shared::id::Digest::of(text.as_bytes()).to_string();
            i64::from_str_radix(digest.get(..15).unwrap_or_default(), 16).unwrap_or_default().into()
        }
        (None, other) => return Err(type_error(format!("unhashable type: '{}'", type_name(other)))),
    };
    Number::Int(if hash == -1 { -2 } else { hash }).value()
}

fn hash_float(float: f64) -> i128 {
    const BITS: i32 = 61;
    const MODULUS: u128 = (1 << BITS) - 1;
    // the exact value is mantissa × 2^exponent, and 2^61 leaves 1
    let bits = float.abs().to_bits();
    let (stored, low) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if stored == 0 { (low, -1074) } else { (low | (1 << 52), stored - 1075) };
    let turned = u128::from(mantissa) % MODULUS * (1_u128 << exponent.rem_euclid(BITS)) % MODULUS;
    let hash = turned.cast_signed();
    if float < 0.0 { -hash } else { hash }
}
