//! The table of methods, and how each makes its value.

use super::{Make, Source, data};
use chrono::{DateTime, Datelike as _, Duration, NaiveDate, Utc};
use fake::Fake as _;
use fake::faker::address::en as address;
use fake::faker::company::en as company;
use fake::faker::currency::en as currency;
use fake::faker::filesystem::en as filesystem;
use fake::faker::internet::en as internet;
use fake::faker::job::en as job;
use fake::faker::lorem::en as lorem;
use fake::faker::name::en as name;
use fake::faker::phone_number::en as phone;
use sha2::Digest as _;
use std::fmt::Write as _;

/// A text that the `fake` crate makes.
macro_rules! of {
    ($faker:expr) => {
        |s| $faker.fake_with_rng::<String, _>(s)
    };
}

/// Every method by name.
pub(super) const METHODS: &[(&str, Make)] = &[
    // people
    ("name", person),
    ("name_female", |s| format!("{} {}", s.one(data::FEMALE), last(s))),
    ("name_male", |s| format!("{} {}", s.one(data::MALE), last(s))),
    ("name_nonbinary", person),
    ("first_name", first),
    ("first_name_female", |s| s.one(data::FEMALE).into()),
    ("first_name_male", |s| s.one(data::MALE).into()),
    ("first_name_nonbinary", first),
    ("last_name", last),
    ("last_name_female", last),
    ("last_name_male", last),
    ("last_name_nonbinary", last),
    ("prefix", |s| if s.between(0, 1) == 0 { s.one(data::PREFIXES_FEMALE) } else { s.one(data::PREFIXES_MALE) }.into()),
    ("prefix_female", |s| s.one(data::PREFIXES_FEMALE).into()),
    ("prefix_male", |s| s.one(data::PREFIXES_MALE).into()),
    ("suffix", |s| s.one(data::SUFFIXES).into()),
    ("suffix_female", |s| s.one(data::SUFFIXES).into()),
    ("suffix_male", |s| s.one(data::SUFFIXES).into()),
    ("ssn", |s| format!("{:03}-{:02}-{:04}", s.between(1, 665), s.between(1, 99), s.between(1, 9999))),
    ("language_name", |s| s.one(data::LANGUAGES).into()),
    // accounts and the net
    ("email", safe_email),
    ("safe_email", safe_email),
    ("ascii_email", safe_email),
    ("ascii_safe_email", safe_email),
    ("free_email", free_email),
    ("ascii_free_email", free_email),
    ("company_email", |s| format!("{}@{}", user_name(s), domain(s))),
    ("ascii_company_email", |s| format!("{}@{}", user_name(s), domain(s))),
    ("free_email_domain", of!(internet::FreeEmailProvider())),
    ("user_name", user_name),
    ("password", password),
    ("domain_name", domain),
    ("domain_word", domain_word),
    ("safe_domain_name", |s| s.one(data::SAFE_DOMAINS).into()),
    ("tld", |s| s.one(data::TLDS).into()),
    ("hostname", |s| {
        format!(
            "{}-{:02}.{}",
            s.one(&["db", "srv", "desktop", "laptop", "lt", "email", "web"]),
            s.between(0, 99),
            domain(s)
        )
    }),
    ("url", url),
    ("uri", |s| format!("{}{}/{}{}", url(s), path(s), s.one(data::PAGES), s.one(data::EXTENSIONS))),
    ("uri_path", path),
    ("uri_page", |s| s.one(data::PAGES).into()),
    ("uri_extension", |s| s.one(data::EXTENSIONS).into()),
    ("image_url", |s| format!("https://picsum.photos/{}/{}", s.between(16, 1024), s.between(16, 1024))),
    ("slug", |s| (0..3).map(|_| word(s)).collect::<Vec<_>>().join("-")),
    ("ipv4", of!(internet::IPv4())),
    ("ipv4_public", ipv4_public),
    ("ipv4_private", |s| match s.between(0, 2) {
        0 => format!("10.{}.{}.{}", s.between(0, 255), s.between(0, 255), s.between(1, 254)),
        1 => format!("172.{}.{}.{}", s.between(16, 31), s.between(0, 255), s.between(1, 254)),
        _ => format!("192.168.{}.{}", s.between(0, 255), s.between(1, 254)),
    }),
    ("ipv6", |s| std::net::Ipv6Addr::from(u128::from(s.0.next_u64()) << 64 | u128::from(s.0.next_u64())).to_string()),
    ("mac_address", |s| (0..6).map(|_| s.pattern("^^")).collect::<Vec<_>>().join(":")),
    ("port_number", |s| s.between(0, 65_535).to_string()),
    ("http_method", |s| s.one(data::METHODS).into()),
    ("http_status_code", |s| s.one(data::STATUSES).into()),
    ("user_agent", of!(internet::UserAgent())),
    ("chrome", |s| {
        let version = s.between(100, 140);
        format!(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36"
        )
    }),
    ("firefox", |s| {
        let version = s.between(100, 140);
        format!("Mozilla/5.0 (X11; Linux x86_64; rv:{version}.0) Gecko/20100101 Firefox/{version}.0")
    }),
    ("safari", |s| {
        let version = s.between(13, 18);
        format!(
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{version}.0 Safari/605.1.15"
        )
    }),
    // places
    ("address", |s| format!("{}\n{}, {} {}", street_address(s), city(s), state_abbr(s), postcode(s))),
    ("street_address", street_address),
    ("street_name", of!(address::StreetName())),
    ("street_suffix", of!(address::StreetSuffix())),
    ("building_number", building),
    ("secondary_address", of!(address::SecondaryAddress())),
    ("city", city),
    ("city_prefix", of!(address::CityPrefix())),
    ("city_suffix", of!(address::CitySuffix())),
    ("state", of!(address::StateName())),
    ("administrative_unit", of!(address::StateName())),
    ("state_abbr", state_abbr),
    ("country", of!(address::CountryName())),
    ("country_code", of!(address::CountryCode())),
    ("current_country", |_| "United States".into()),
    ("current_country_code", |_| "US".into()),
    ("postcode", postcode),
    ("postalcode", postcode),
    ("zipcode", postcode),
    ("latitude", |s| coordinate(s, 90.0)),
    ("longitude", |s| coordinate(s, 180.0)),
    ("coordinate", |s| coordinate(s, 180.0)),
    ("timezone", of!(address::TimeZone())),
    ("locale", |s| s.one(data::LOCALES).into()),
    ("language_code", |s| s.one(data::LOCALES).split('_').next().unwrap_or_default().into()),
    ("phone_number", of!(phone::PhoneNumber())),
    ("basic_phone_number", |s| s.pattern("%##-%##-####")),
    ("msisdn", |s| s.pattern("%############")),
    ("country_calling_code", |s| s.one(data::CALLING_CODES).into()),
    // work
    ("company", company_name),
    ("company_suffix", of!(company::CompanySuffix())),
    ("catch_phrase", of!(company::CatchPhrase())),
    ("bs", of!(company::Bs())),
    ("job", of!(job::Title())),
    ("job_female", of!(job::Title())),
    ("job_male", of!(job::Title())),
    // words
    ("word", word),
    ("words", |s| list(&(0..3).map(|_| word(s)).collect::<Vec<_>>())),
    ("sentence", sentence),
    ("sentences", |s| list(&(0..3).map(|_| sentence(s)).collect::<Vec<_>>())),
    ("paragraph", paragraph),
    ("paragraphs", |s| list(&(0..3).map(|_| paragraph(s)).collect::<Vec<_>>())),
    ("text", text),
    ("texts", |s| list(&(0..3).map(|_| text(s)).collect::<Vec<_>>())),
    ("emoji", |s| s.one(data::EMOJI).into()),
    // numbers and marks
    ("random_int", |s| s.between(0, 9_999).to_string()),
    ("random_digit", |s| s.between(0, 9).to_string()),
    ("random_digit_not_null", |s| s.between(1, 9).to_string()),
    ("random_digit_or_empty", |s| if s.between(0, 1) == 0 { String::new() } else { s.between(0, 9).to_string() }),
    (
        "random_digit_not_null_or_empty",
        |s| if s.between(0, 1) == 0 { String::new() } else { s.between(1, 9).to_string() },
    ),
    ("random_number", |s| {
        let digits = s.between(1, 9) as u32;
        s.between(0, 10_u64.pow(digits) - 1).to_string()
    }),
    ("random_letter", |s| s.letters(1, data::LETTERS)),
    ("random_lowercase_letter", |s| s.letters(1, data::LOWER)),
    ("random_uppercase_letter", |s| s.letters(1, data::UPPER)),
    ("random_element", |s| s.letters(1, b"abc")),
    ("randomize_nb_elements", |s| s.between(6, 14).to_string()),
    ("numerify", |s| s.pattern("###")),
    ("lexify", |s| s.letters(4, data::LETTERS)),
    ("bothify", |s| s.pattern("## ") + &s.letters(2, data::LETTERS)),
    ("hexify", |s| s.pattern("^^^^")),
    ("pyint", |s| s.between(0, 9_999).to_string()),
    ("pyfloat", |s| format!("{}{}.{}", sign(s), s.between(0, 999_999_999), s.between(1, 99_999))),
    ("pydecimal", |s| format!("{}{}.{}", sign(s), s.between(0, 999_999_999), s.between(1, 99_999))),
    ("pystr", |s| s.letters(20, data::LETTERS)),
    ("pybool", boolean),
    ("boolean", boolean),
    ("null_boolean", |s| s.one(&["True", "False", "None"]).into()),
    ("uuid4", |s| {
        let random = u128::from(s.0.next_u64()) << 64 | u128::from(s.0.next_u64());
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string()
    }),
    ("md5", |s| s.letters(32, data::HEX)),
    ("sha1", |s| s.letters(40, data::HEX)),
    ("sha256", |s| hex(&sha2::Sha256::digest(s.0.next_u64().to_le_bytes()))),
    // dates and times
    ("date", |s| since_1970(s).format("%Y-%m-%d").to_string()),
    ("time", |s| since_1970(s).format("%H:%M:%S").to_string()),
    ("date_time", |s| moment(since_1970(s))),
    ("date_object", |s| since_1970(s).format("%Y-%m-%d").to_string()),
    ("time_object", |s| since_1970(s).format("%H:%M:%S").to_string()),
    ("iso8601", |s| since_1970(s).format("%Y-%m-%dT%H:%M:%S").to_string()),
    ("unix_time", |s| since_1970(s).timestamp().to_string()),
    ("year", |s| since_1970(s).year().to_string()),
    ("month", |s| format!("{:02}", s.between(1, 12))),
    ("month_name", |s| s.one(data::MONTHS).into()),
    ("day_of_month", |s| format!("{:02}", s.between(1, 28))),
    ("day_of_week", |s| s.one(data::DAYS).into()),
    ("century", |s| s.one(data::CENTURIES).into()),
    ("am_pm", |s| s.one(&["AM", "PM"]).into()),
    ("date_of_birth", |s| day(now() - Duration::days(s.between(0, 115 * 365).cast_signed()))),
    ("past_date", |s| day(now() - Duration::days(s.between(1, 30).cast_signed()))),
    ("future_date", |s| day(now() + Duration::days(s.between(1, 30).cast_signed()))),
    ("past_datetime", |s| moment(now() - Duration::seconds(s.between(1, 30 * 86_400).cast_signed()))),
    ("future_datetime", |s| moment(now() + Duration::seconds(s.between(1, 30 * 86_400).cast_signed()))),
    ("date_between", |s| day(now() - Duration::days(s.between(0, 30 * 365).cast_signed()))),
    ("date_time_between", |s| moment(now() - Duration::seconds(s.between(0, 30 * 365 * 86_400).cast_signed()))),
    ("date_this_month", |s| day(this(s, first_of_month(now().year(), now().month())))),
    ("date_this_year", |s| day(this(s, first_of_month(now().year(), 1)))),
    ("date_this_decade", |s| day(this(s, first_of_month(now().year() / 10 * 10, 1)))),
    ("date_this_century", |s| day(this(s, first_of_month(now().year() / 100 * 100, 1)))),
    ("date_time_this_month", |s| moment(this(s, first_of_month(now().year(), now().month())))),
    ("date_time_this_year", |s| moment(this(s, first_of_month(now().year(), 1)))),
    ("date_time_this_decade", |s| moment(this(s, first_of_month(now().year() / 10 * 10, 1)))),
    ("date_time_this_century", |s| moment(this(s, first_of_month(now().year() / 100 * 100, 1)))),
    // colours
    ("color_name", |s| color(s).0.into()),
    ("safe_color_name", |s| s.one(data::SAFE_COLORS).into()),
    ("hex_color", hex_color),
    ("color", hex_color),
    ("safe_hex_color", |s| {
        let digits = s.letters(3, data::HEX);
        std::iter::once('#').chain(digits.chars().flat_map(|digit| [digit, digit])).collect()
    }),
    ("rgb_color", |s| format!("{},{},{}", s.between(0, 255), s.between(0, 255), s.between(0, 255))),
    ("rgb_css_color", |s| format!("rgb({},{},{})", s.between(0, 255), s.between(0, 255), s.between(0, 255))),
    // money
    ("credit_card_number", |s| {
        let card = card(s);
        card_number(s, card)
    }),
    ("credit_card_provider", |s| card(s).0.into()),
    ("credit_card_expire", card_expire),
    ("credit_card_security_code", |s| {
        let length = card(s).3;
        s.letters(length, data::DIGITS)
    }),
    ("credit_card_full", |s| {
        let card = card(s);
        let (holder, number, expire) = (person(s), card_number(s, card), card_expire(s));
        let code = s.letters(card.3, data::DIGITS);
        format!("{}\n{holder}\n{number} {expire}\nCVC: {code}\n", card.0)
    }),
    ("iban", iban),
    ("bban", |s| s.letters(4, data::UPPER) + &s.letters(14, data::DIGITS)),
    ("swift", |s| swift(s, 11)),
    ("swift8", |s| swift(s, 8)),
    ("swift11", |s| swift(s, 11)),
    ("aba", aba),
    ("bank_country", |_| "GB".into()),
    ("currency_code", of!(currency::CurrencyCode())),
    ("currency_name", of!(currency::CurrencyName())),
    ("currency_symbol", of!(currency::CurrencySymbol())),
    ("cryptocurrency_code", |s| coin(s).0.into()),
    ("cryptocurrency_name", |s| coin(s).1.into()),
    ("pricetag", |s| format!("${}.{:02}", s.between(1, 999), s.between(0, 99))),
    // things
    ("file_name", |s| format!("{}.{}", word(s), filesystem::FileExtension().fake_with_rng::<String, _>(s))),
    ("file_extension", of!(filesystem::FileExtension())),
    ("file_path", |s| {
        format!("/{}/{}.{}", word(s), word(s), filesystem::FileExtension().fake_with_rng::<String, _>(s))
    }),
    ("mime_type", of!(filesystem::MimeType())),
    ("unix_device", |s| format!("/dev/{}{}", s.one(&["sd", "vd", "xvd"]), s.letters(1, data::LOWER))),
    ("unix_partition", |s| {
        format!("/dev/{}{}{}", s.one(&["sd", "vd", "xvd"]), s.letters(1, data::LOWER), s.between(0, 9))
    }),
    ("ean", |s| ean(s, 13)),
    ("ean13", |s| ean(s, 13)),
    ("ean8", |s| ean(s, 8)),
    ("upc_a", |s| ean(s, 12)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("license_plate", |s| s.letters(3, data::UPPER) + &s.pattern("-####")),
    ("vin", |s| s.letters(17, data::VIN)),
];

fn first(s: &mut Source<'_>) -> String {
    name::FirstName().fake_with_rng(s)
}

fn last(s: &mut Source<'_>) -> String {
    name::LastName().fake_with_rng(s)
}

fn person(s: &mut Source<'_>) -> String {
    format!("{} {}", first(s), last(s))
}

/// As Faker makes them: `jsmith`, `smith.john`, `john42`. ASCII, no spaces.
fn user_name(s: &mut Source<'_>) -> String {
    let plain = |text: String| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect() };
    let (first, last) = (plain(first(s)).to_lowercase(), plain(last(s)).to_lowercase());
    let number = s.between(1, 99);
    match s.between(0, 3) {
        0 => format!("{}{last}", first.chars().next().unwrap_or('x')),
        1 => format!("{first}{number:02}"),
        2 => format!("{first}.{last}"),
        _ => format!("{last}{first}"),
    }
}

fn safe_email(s: &mut Source<'_>) -> String {
    format!("{}@{}", user_name(s), s.one(data::SAFE_DOMAINS))
}

fn free_email(s: &mut Source<'_>) -> String {
    format!("{}@{}", user_name(s), internet::FreeEmailProvider().fake_with_rng::<String, _>(s))
}

/// Ten characters, one of each kind at least.
fn password(s: &mut Source<'_>) -> String {
    let all = [data::LETTERS, data::DIGITS, data::MARKS].concat();
    let mut text: Vec<char> = s.letters(10, &all).chars().collect();
    let start = s.between(0, 9) as usize;
    for (i, kind) in [data::MARKS, data::DIGITS, data::UPPER, data::LOWER].iter().enumerate() {
        text[(start + 3 * i) % 10] = s.letters(1, kind).chars().next().unwrap_or('x');
    }
    text.into_iter().collect()
}

fn domain_word(s: &mut Source<'_>) -> String {
    let plain = |text: String| -> String { text.chars().filter(char::is_ascii_alphabetic).collect() };
    plain(last(s)).to_lowercase()
}

fn domain(s: &mut Source<'_>) -> String {
    format!("{}.{}", domain_word(s), s.one(data::TLDS))
}

fn url(s: &mut Source<'_>) -> String {
    format!("{}://www.{}/", s.one(&["http", "https"]), domain(s))
}

fn path(s: &mut Source<'_>) -> String {
    let count = s.between(1, 3);
    (0..count).map(|_| s.one(data::PATHS)).collect::<Vec<_>>().join("/")
}

fn ipv4_public(s: &mut Source<'_>) -> String {
    loop {
        let address = std::net::Ipv4Addr::from((s.0.next_u64() >> 32) as u32);
        let [first, second, ..] = address.octets();
        let shared = first == 100 && (64..128).contains(&second) || first == 198 && (18..20).contains(&second);
        let special = address.is_private() || address.is_loopback() || address.is_link_local() || shared;
        if !special && (1..224).contains(&first) {
            return address.to_string();
        }
    }
}

fn building(s: &mut Source<'_>) -> String {
    let pattern = s.one(&["%##", "%###", "%####"]);
    s.pattern(pattern)
}

fn street_address(s: &mut Source<'_>) -> String {
    format!("{} {}", building(s), address::StreetName().fake_with_rng::<String, _>(s))
}

fn city(s: &mut Source<'_>) -> String {
    address::CityName().fake_with_rng(s)
}

fn state_abbr(s: &mut Source<'_>) -> String {
    address::StateAbbr().fake_with_rng(s)
}

fn postcode(s: &mut Source<'_>) -> String {
    format!("{:05}", s.between(501, 99_950))
}

/// Between −`most` and `most`, with the digits of Faker's decimals.
fn coordinate(s: &mut Source<'_>, most: f64) -> String {
    format!("{:.6}", s.0.between(-most, most))
}

fn company_name(s: &mut Source<'_>) -> String {
    match s.between(0, 2) {
        0 => format!("{} {}", last(s), s.one(&["Inc", "Ltd", "LLC", "PLC", "Group", "and Sons"])),
        1 => format!("{}-{}", last(s), last(s)),
        _ => format!("{}, {} and {}", last(s), last(s), last(s)),
    }
}

fn word(s: &mut Source<'_>) -> String {
    lorem::Word().fake_with_rng(s)
}

fn sentence(s: &mut Source<'_>) -> String {
    let sentence: String = lorem::Sentence(4..9).fake_with_rng(s);
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn paragraph(s: &mut Source<'_>) -> String {
    let count = s.between(2, 4);
    (0..count).map(|_| sentence(s)).collect::<Vec<_>>().join(" ")
}

/// At most 200 characters, as Faker's.
fn text(s: &mut Source<'_>) -> String {
    let mut text = sentence(s);
    loop {
        let more = sentence(s);
        if text.len() + 1 + more.len() > 200 {
            return text;
        }
        text.push(' ');
        text.push_str(&more);
    }
}

/// As Python writes a list of texts.
fn list(items: &[String]) -> String {
    crate::pytext::Repr(&serde_json::Value::from(items)).to_string()
}

fn boolean(s: &mut Source<'_>) -> String {
    s.one(&["True", "False"]).into()
}

fn sign(s: &mut Source<'_>) -> &'static str {
    s.one(&["", "-"])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

fn now() -> DateTime<Utc> {
    crate::boot::clock::wall()
}

/// Between 1970 and 2024: whatever the day is, the same seed gives the same value.
fn since_1970(s: &mut Source<'_>) -> DateTime<Utc> {
    DateTime::from_timestamp(s.between(0, 1_704_067_199).cast_signed(), 0).unwrap_or_default()
}

/// Between `from` and now.
fn this(s: &mut Source<'_>, from: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = (now() - from).num_seconds().max(0);
    from + Duration::seconds(s.between(0, seconds as u64).cast_signed())
}

fn first_of_month(year: i32, month: u32) -> DateTime<Utc> {
    NaiveDate::from_ymd_opt(year, month, 1).unwrap_or_default().and_time(chrono::NaiveTime::MIN).and_utc()
}

fn day(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d").to_string()
}

fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn color(s: &mut Source<'_>) -> (&'static str, &'static str) {
    data::COLORS[s.between(0, data::COLORS.len() as u64 - 1) as usize]
}

fn hex_color(s: &mut Source<'_>) -> String {
    format!("#{}", s.letters(6, data::HEX))
}

fn coin(s: &mut Source<'_>) -> (&'static str, &'static str) {
    data::COINS[s.between(0, data::COINS.len() as u64 - 1) as usize]
}

type Card = (&'static str, &'static [&'static str], usize, usize);

fn card(s: &mut Source<'_>) -> Card {
    data::CARDS[s.between(0, data::CARDS.len() as u64 - 1) as usize]
}

/// With a valid last digit. Source: Luhn, US patent 2,950,048.
fn card_number(s: &mut Source<'_>, (_, beginnings, length, _): Card) -> String {
    let mut number = s.one(beginnings).to_owned();
    number.push_str(&s.letters(length - 1 - number.len(), data::DIGITS));
    let sum: u32 =
        digits(&number).rev().enumerate().map(|(i, d)| if i % 2 == 0 { d * 2 / 10 + d * 2 % 10 } else { d }).sum();
    number + &((10 - sum % 10) % 10).to_string()
}

fn card_expire(s: &mut Source<'_>) -> String {
    format!("{:02}/{:02}", s.between(1, 12), s.between(26, 35))
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> + '_ {
    text.chars().filter_map(|c| c.to_digit(10))
}

/// With valid check digits. Source: ISO 13616 (ISO 7064 mod 97-10).
fn iban(s: &mut Source<'_>) -> String {
    let (country, length) = data::IBANS[s.between(0, data::IBANS.len() as u64 - 1) as usize];
    let account = s.letters(length, data::DIGITS);
    let turned = format!("{account}{country}00");
    let rest = turned.chars().filter_map(|c| c.to_digit(36)).fold(0_u64, |rest, d| {
        let width = if d > 9 { 100 } else { 10 };
        (rest * width + u64::from(d)) % 97
    });
    format!("{country}{:02}{account}", 98 - rest)
}

fn swift(s: &mut Source<'_>, length: usize) -> String {
    let alphabet = [data::UPPER, data::DIGITS].concat();
    s.letters(4, data::UPPER) + "GB" + &s.letters(length - 6, &alphabet)
}

/// With a valid check digit. Source: ABA routing numbers, weights 3 7 1.
fn aba(s: &mut Source<'_>) -> String {
    let number = format!("{:02}{}", s.between(1, 12), s.letters(6, data::DIGITS));
    let sum: u32 = digits(&number).zip([3, 7, 1].into_iter().cycle()).map(|(d, weight)| d * weight).sum();
    number + &((10 - sum % 10) % 10).to_string()
}

/// With a valid check digit. Source: GS1, weights 3 and 1 from the right.
fn ean(s: &mut Source<'_>, length: usize) -> String {
    let number = s.letters(length - 1, data::DIGITS);
    with_gs1(&number)
}

fn with_gs1(number: &str) -> String {
    let sum: u32 = digits(number).rev().enumerate().map(|(i, d)| if i % 2 == 0 { 3 * d } else { d }).sum();
    format!("{number}{}", (10 - sum % 10) % 10)
}

fn isbn13(s: &mut Source<'_>) -> String {
    let (group, publisher, title) = (s.between(0, 1), s.pattern("###"), s.pattern("#####"));
    let all = with_gs1(&format!("978{group}{publisher}{title}"));
    format!("978-{group}-{publisher}-{title}-{}", all.chars().next_back().unwrap_or('0'))
}

/// Source: ISO 2108, weights 10 to 2, modulo 11.
fn isbn10(s: &mut Source<'_>) -> String {
    let (group, publisher, title) = (s.between(0, 1), s.pattern("###"), s.pattern("#####"));
    let number = format!("{group}{publisher}{title}");
    let sum: u32 = digits(&number).zip((2..=10).rev()).map(|(d, weight)| d * weight).sum();
    let check = match (11 - sum % 11) % 11 {
        10 => "X".to_owned(),
        digit => digit.to_string(),
    };
    format!("{group}-{publisher}-{title}-{check}")
}
