//! Words and alphabets that the `fake` crate lacks.

pub(super) const DIGITS: &[u8] = b"0123456789";
pub(super) const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
pub(super) const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
pub(super) const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
pub(super) const HEX: &[u8] = b"0123456789abcdef";
/// The marks of Faker's passwords.
pub(super) const MARKS: &[u8] = b"!@#$%^&*()_+";
/// What a vehicle's number is made of: no I, O, Q.
pub(super) const VIN: &[u8] = b"ABCDEFGHJKLMNPRSTUVWXYZ0123456789";

pub(super) const FEMALE: &[&str] = &[
    "Amanda",
    "Angela",
    "Anna",
    "Barbara",
    "Carol",
    "Christine",
    "Deborah",
    "Diana",
    "Elizabeth",
    "Emily",
    "Heather",
    "Jennifer",
    "Jessica",
    "Julie",
    "Karen",
    "Kimberly",
    "Laura",
    "Linda",
    "Lisa",
    "Maria",
    "Mary",
    "Megan",
    "Michelle",
    "Nancy",
    "Nicole",
    "Patricia",
    "Rachel",
    "Rebecca",
    "Sandra",
    "Sarah",
    "Stephanie",
    "Susan",
    "Tiffany",
    "Victoria",
];
pub(super) const MALE: &[&str] = &[
    "Aaron",
    "Adam",
    "Andrew",
    "Anthony",
    "Benjamin",
    "Brian",
    "Charles",
    "Christopher",
    "Daniel",
    "David",
    "Eric",
    "Gary",
    "George",
    "Jacob",
    "James",
    "Jason",
    "Jeffrey",
    "John",
    "Jonathan",
    "Joseph",
    "Joshua",
    "Kevin",
    "Mark",
    "Matthew",
    "Michael",
    "Nathan",
    "Paul",
    "Peter",
    "Richard",
    "Robert",
    "Ronald",
    "Scott",
    "Steven",
    "Thomas",
    "Timothy",
    "William",
];
pub(super) const PREFIXES_FEMALE: &[&str] = &["Mrs.", "Ms.", "Miss", "Dr."];
pub(super) const PREFIXES_MALE: &[&str] = &["Mr.", "Dr."];
pub(super) const SUFFIXES: &[&str] = &["Jr.", "II", "III", "IV", "V", "MD", "DDS", "PhD", "DVM"];

pub(super) const COLORS: &[(&str, &str)] = &[
    ("AliceBlue", "#F0F8FF"),
    ("Aquamarine", "#7FFFD4"),
    ("Beige", "#F5F5DC"),
    ("Black", "#000000"),
    ("Blue", "#0000FF"),
    ("Brown", "#A52A2A"),
    ("Chocolate", "#D2691E"),
    ("Coral", "#FF7F50"),
    ("Crimson", "#DC143C"),
    ("Cyan", "#00FFFF"),
    ("DarkGreen", "#006400"),
    ("DeepPink", "#FF1493"),
    ("Gold", "#FFD700"),
    ("Gray", "#808080"),
    ("Green", "#008000"),
    ("Indigo", "#4B0082"),
    ("Ivory", "#FFFFF0"),
    ("Khaki", "#F0E68C"),
    ("Lavender", "#E6E6FA"),
    ("Lime", "#00FF00"),
    ("Magenta", "#FF00FF"),
    ("Maroon", "#800000"),
    ("Navy", "#000080"),
    ("Olive", "#808000"),
    ("Orange", "#FFA500"),
    ("Orchid", "#DA70D6"),
    ("Pink", "#FFC0CB"),
    ("Plum", "#DDA0DD"),
    ("Purple", "#800080"),
    ("Red", "#FF0000"),
    ("Salmon", "#FA8072"),
    ("SkyBlue", "#87CEEB"),
    ("Teal", "#008080"),
    ("Tomato", "#FF6347"),
    ("Turquoise", "#40E0D0"),
    ("Violet", "#EE82EE"),
    ("White", "#FFFFFF"),
    ("Yellow", "#FFFF00"),
];
pub(super) const SAFE_COLORS: &[&str] = &[
    "black", "maroon", "green", "navy", "olive", "purple", "teal", "lime", "blue", "silver", "gray", "yellow",
    "fuchsia", "aqua", "white",
];

pub(super) const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
pub(super) const CENTURIES: &[&str] = &["XVI", "XVII", "XVIII", "XIX", "XX", "XXI"];

pub(super) const TLDS: &[&str] = &["com", "org", "net", "info", "biz"];
pub(super) const SAFE_DOMAINS: &[&str] = &["example.org", "example.com", "example.net"];
pub(super) const PATHS: &[&str] = &[
    "app",
    "main",
    "wp-content",
    "search",
    "category",
    "tag",
    "categories",
    "tags",
    "blog",
    "posts",
    "list",
    "explore",
];
pub(super) const PAGES: &[&str] = &[
    "index", "home", "search", "main", "post", "homepage", "category", "register", "login", "faq", "about", "terms",
    "privacy", "author",
];
pub(super) const EXTENSIONS: &[&str] = &[".html", ".htm", ".php", ".jsp", ".asp"];
pub(super) const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
pub(super) const STATUSES: &[&str] = &[
    "200", "201", "202", "204", "301", "302", "303", "304", "307", "308", "400", "401", "403", "404", "405", "409",
    "410", "422", "429", "500", "501", "502", "503", "504",
];

/// Name, beginnings of numbers, length of numbers, length of the security code.
pub(super) const CARDS: &[(&str, &[&str], usize, usize)] = &[
    ("VISA 16 digit", &["4"], 16, 3),
    ("Mastercard", &["51", "52", "53", "54", "55", "2221", "2300", "2720"], 16, 3),
    ("American Express", &["34", "37"], 15, 4),
    ("Discover", &["6011", "65"], 16, 3),
    ("Diners Club / Carte Blanche", &["300", "301", "304", "36", "38"], 14, 3),
    ("JCB 16 digit", &["3528", "3535", "3589"], 16, 3),
];
pub(super) const COINS: &[(&str, &str)] = &[
    ("BTC", "Bitcoin"),
    ("ETH", "Ethereum"),
    ("LTC", "Litecoin"),
    ("XRP", "Ripple"),
    ("ADA", "Cardano"),
    ("DASH", "Dash"),
    ("XMR", "Monero"),
    ("ZEC", "Zcash"),
    ("NEO", "NEO"),
    ("EOS", "EOS.IO"),
];
pub(super) const LOCALES: &[&str] = &[
    "en_US", "en_GB", "en_AU", "de_DE", "fr_FR", "es_ES", "it_IT", "pt_BR", "nl_NL", "sv_SE", "pl_PL", "cs_CZ",
    "tr_TR", "ru_RU", "ja_JP", "ko_KR", "zh_CN", "zh_TW", "ar_EG", "he_IL",
];
pub(super) const LANGUAGES: &[&str] = &[
    "Arabic",
    "Bengali",
    "Catalan",
    "Chinese",
    "Czech",
    "Danish",
    "Dutch",
    "English",
    "Finnish",
    "French",
    "German",
    "Greek",
    "Hindi",
    "Hungarian",
    "Italian",
    "Japanese",
    "Korean",
    "Norwegian",
    "Polish",
    "Portuguese",
    "Russian",
    "Spanish",
    "Swedish",
    "Turkish",
    "Ukrainian",
    "Vietnamese",
];
pub(super) const CALLING_CODES: &[&str] =
    &["+1", "+33", "+34", "+39", "+44", "+46", "+48", "+49", "+55", "+61", "+64", "+81", "+82", "+86", "+886", "+91"];
pub(super) const EMOJI: &[&str] = &[
    "😀", "😂", "😉", "😍", "🤔", "😎", "😢", "👍", "👋", "🎉", "🔥", "🚀", "🌍", "🍎", "🐱", "🐶", "⚽", "❤️", "⭐",
    "✅",
];
/// Country codes of account numbers here, with the length of what follows the check digits.
pub(super) const IBANS: &[(&str, usize)] = &[("DE", 18), ("AT", 16), ("BE", 12), ("DK", 14), ("CH", 17), ("PL", 24)];
