//! Names that people and programs give to the column of the addresses.

/// In letters and digits only, lower case; the first that is there wins.
const KNOWN: [&str; 62] = [
    "email",
    "emailaddress",
    "mailaddress",
    "mail",
    "emails",
    "emailaddr",
    "emailid",
    "email1",
    "email1value",
    "email1address",
    "emailaddress1",
    "primaryemail",
    "primaryemailaddress",
    "workemail",
    "businessemail",
    "contactemail",
    "useremail",
    "customeremail",
    "subscriberemail",
    "personalemail",
    "homeemail",
    "emailwork",
    "emailhome",
    "emailpersonal",
    "emailother",
    "contactemailaddress",
    "loginemail",
    "billingemail",
    "buyeremail",
    "recipientemail",
    "emailadresse",
    "mailadresse",
    "epostadresse",
    "correo",
    "correoelectrónico",
    "correoelectronico",
    "direccióndecorreoelectrónico",
    "direccióndecorreo",
    "courriel",
    "adressedemessagerie",
    "adresseemail",
    "adressemail",
    "adressecourriel",
    "indirizzoemail",
    "indirizzopostaelettronica",
    "postaelettronica",
    "endereçodeemail",
    "emailadres",
    "mailadres",
    "adresemail",
    "eposta",
    "epost",
    "epostadress",
    "sähköposti",
    "почта",
    "электроннаяпочта",
    "адресэлектроннойпочты",
    "邮箱",
    "电子邮件",
    "电子邮箱",
    "メールアドレス",
    "メール",
];
/// Letters and digits of a header that are looked at.
const LETTERS: usize = 64;

/// Where the addresses are, among these headers.
pub(super) fn find<'a>(headers: impl Iterator<Item = &'a str>) -> Option<usize> {
    let names: Vec<String> = headers.map(letters).collect();
    KNOWN.iter().find_map(|known| names.iter().position(|name| name == known))
}

/// Is it such a name?
pub(super) fn is_known(header: &str) -> bool {
    let name = letters(header);
    KNOWN.iter().any(|known| *known == name)
}

fn letters(header: &str) -> String {
    let letters = header.chars().filter(|c| c.is_alphanumeric()).take(LETTERS);
    letters.flat_map(char::to_lowercase).collect()
}
