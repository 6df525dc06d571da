//! Phrases in other languages, written with their accents. What they mean is decided by `rules`.

use super::words::Phrases;
use super::words::Set::{
    BlockList, Content, Disabled, Full, Host, Missing, Policy, Rate, TooMuch, Trouble,
};

/// See [`super::words`].
#[rustfmt::skip]
pub const PHRASES: &[Phrases] = &[
    // German
    (Missing, &[
        "empfänger unbekannt", "empfänger ist unbekannt", "unbekannter empfänger",
        "empfänger existiert nicht", "empfänger nicht gefunden", "empfänger nicht vorhanden",
        "empfänger ungültig", "ungültiger empfänger", "ungültige empfänger", "ungültige adresse",
        "empfängeradresse existiert nicht", "empfängeradresse unbekannt", "empfängeradresse ungültig",
        "benutzer unbekannt", "benutzer ist unbekannt", "unbekannter benutzer", "benutzer existiert nicht",
        "benutzer nicht gefunden", "benutzer nicht vorhanden", "kein solcher benutzer", "kein benutzer",
        "nutzer unbekannt", "teilnehmer unbekannt", "adressat unbekannt", "adressat existiert nicht",
        "postfach existiert nicht", "postfach nicht gefunden", "postfach unbekannt",
        "postfach nicht vorhanden", "kein postfach", "kein solches postfach", "mailbox existiert nicht",
        "mailbox nicht gefunden", "mailbox unbekannt", "mailadresse existiert nicht",
        "adresse existiert nicht", "adresse ist unbekannt", "adresse unbekannt", "adresse nicht gefunden",
        "unbekannte adresse", "unbekannte mailadresse", "emailadresse existiert nicht",
        "konto existiert nicht", "nicht mehr gültig", "existiert nicht mehr", "gibt es hier nicht",
    ]),
    (Disabled, &[
        "postfach deaktiviert", "postfach ist deaktiviert", "postfach ist gesperrt", "postfach gesperrt",
        "konto deaktiviert", "konto ist deaktiviert", "konto gesperrt", "konto ist gesperrt",
        "benutzer gesperrt", "benutzer deaktiviert", "empfänger gesperrt", "mailbox ist deaktiviert",
        "mailbox gesperrt", "adresse ist deaktiviert",
    ]),
    (Full, &[
        "postfach voll", "postfach ist voll", "postfach des empfängers ist voll", "mailbox voll",
        "mailbox ist voll", "mailbox des empfängers ist voll", "speicherplatz erschöpft",
        "speicherplatz überschritten", "quota überschritten", "kontingent überschritten",
        "zuviele mails auf dem server", "zu viele mails auf dem server", "zu viele nachrichten im postfach",
        "posteingang voll", "postfach überfüllt", "hat sein speicherlimit",
    ]),
    // French
    (Missing, &[
        "utilisateur inconnu", "utilisateur est inconnu", "utilisateur n'existe pas",
        "utilisateur inexistant", "utilisateur introuvable", "utilisateur non trouvé", "destinataire inconnu",
        "destinataire est inconnu", "destinataire n'existe pas", "destinataire inexistant",
        "destinataire introuvable", "destinataire invalide", "destinataire non trouvé", "adresse inconnue",
        "adresse est inconnue", "adresse inexistante", "adresse n'existe pas", "adresse email n'existe pas",
        "adresse d'au moins un destinataire invalide", "adresse introuvable", "adresse invalide",
        "adresse email invalide", "adresse destinataire invalide", "adresse du destinataire inconnue",
        "adresse destinataire inconnue", "boîte inconnue", "boîte inexistante", "boîte n'existe pas",
        "boîte aux lettres inexistante", "boîte aux lettres inconnue", "boîte aux lettres n'existe pas",
        "boîte aux lettres introuvable", "bal inconnue", "compte inconnu", "compte inexistant",
        "compte n'existe pas", "compte n'existe plus", "n'existe plus", "abonné inconnu", "aucun utilisateur",
        "pas d'utilisateur", "usager inconnu",
    ]),
    (Disabled, &[
        "boîte du destinataire archivée", "boîte archivée", "boîte désactivée",
        "boîte aux lettres désactivée", "boîte aux lettres suspendue", "boîte du destinataire désactivée",
        "boîte suspendue", "compte désactivé", "compte suspendu", "compte est désactivé",
        "compte est suspendu", "compte fermé", "compte bloqué", "compte inactif", "adresse désactivée",
        "messagerie désactivée",
    ]),
    (Full, &[
        "boîte du destinataire pleine", "boîte pleine", "boîte aux lettres pleine",
        "boîte aux lettres est pleine", "boîte aux lettres du destinataire est pleine", "boîte est pleine",
        "bal pleine", "quota dépassé", "quota atteint", "dépassement de quota", "messagerie pleine",
        "espace de stockage insuffisant", "boîte saturée",
    ]),
    (Host, &["adresse ip", "votre ip", "votre serveur", "ip source"]),
    (BlockList, &[
        "liste noire", "lista negra", "lista nera", "czarnej list", "чёрном списке", "чёрный список", "黑名单",
        "黑名單", "ブラックリスト", "kara liste", "schwarzen liste", "blocklisté",
    ]),
    (Rate, &[
        "trop de destinataires", "trop de messages", "zu viele empfänger", "zu viele nachrichten von",
        "demasiados destinatarios", "demasiados mensajes", "muitos destinatários", "excesso de",
        "troppi destinatari", "te veel ontvangers", "zbyt wielu odbiorc", "слишком много", "过于频繁", "頻繁", "频率",
        "频繁", "过多", "너무 많", "çok fazla",
    ]),
    (TooMuch, &[
        "trop de connexions", "zu viele verbindungen", "demasiadas conexiones", "muitas conexões",
        "troppe connessioni", "te veel verbindingen", "zbyt wiele połączeń", "слишком много соединений",
        "连接过多", "连接频率",
    ]),
    (Policy, &[
        "bloqués", "bloquée", "refusé", "interdit", "gesperrt", "abgelehnt", "abgewiesen", "verweigert",
        "nicht erlaubt", "rechazado", "rechazada", "denegado", "bloqueado", "bloqueada", "no permitido",
        "recusado", "recusada", "negado", "não permitido", "rifiutato", "rifiutata", "negato", "bloccato",
        "geweigerd", "geblokkeerd", "odrzucon", "zablokowan", "отклонен", "отвергнут", "запрещен",
        "заблокирован", "拒绝", "拒絕", "禁止", "拒否", "거부", "차단", "reddedildi", "engellendi",
    ]),
    (Content, &[
        "courrier indésirable", "virus", "correo no deseado", "posta indesiderata", "contenuto", "contenido",
        "conteúdo", "спам", "垃圾邮件", "垃圾郵件", "病毒", "内容", "迷惑メール", "スパム", "스팸", "inhalt", "contenu",
    ]),
    (Trouble, &[
        "réessayez", "später erneut", "später noch einmal", "inténtelo", "intente", "tente novamente",
        "riprova", "probeer het later", "spróbuj ponownie", "попробуйте", "повторите", "稍后", "稍後", "後ほど",
        "나중에", "daha sonra",
    ]),
    // Spanish
    (Missing, &[
        "usuario desconocido", "usuario no existe", "usuario inexistente", "usuario no encontrado",
        "usuario inválido", "usuario no válido", "el usuario no existe", "no existe el usuario",
        "no existe ese usuario", "no existe tal usuario", "destinatario desconocido",
        "destinatario no existe", "destinatario inexistente", "destinatario no encontrado",
        "destinatario inválido", "destinatario no válido", "buzón no existe", "buzón inexistente",
        "buzón desconocido", "buzón no encontrado", "no existe el buzón", "cuenta no existe",
        "cuenta inexistente", "cuenta desconocida", "cuenta no encontrada", "cuenta de correo no existe",
        "no existe la cuenta", "dirección no existe", "dirección desconocida", "dirección inexistente",
        "dirección inválida", "dirección no válida", "dirección de correo no existe", "casilla inexistente",
        "casilla no existe", "casilla desconocida",
    ]),
    (Disabled, &[
        "cuenta deshabilitada", "cuenta desactivada", "cuenta inactiva", "cuenta suspendida",
        "cuenta bloqueada", "cuenta está desactivada", "cuenta está deshabilitada", "cuenta está suspendida",
        "cuenta cancelada", "buzón desactivado", "buzón deshabilitado", "buzón bloqueado",
        "usuario deshabilitado", "usuario inactivo", "usuario suspendido", "usuario bloqueado",
        "casilla deshabilitada",
    ]),
    (Full, &[
        "buzón lleno", "buzón está lleno", "buzón del destinatario está lleno",
        "buzón del destinatario lleno", "buzón de correo lleno", "casilla llena", "casilla está llena",
        "cuota excedida", "cuota superada", "excede la cuota", "excedió su cuota", "ha excedido su cuota",
        "ha superado su cuota", "cuenta llena", "bandeja de entrada llena", "sin espacio en el buzón",
    ]),
    // Portuguese
    (Missing, &[
        "usuário desconhecido", "usuário inexistente", "usuário não existe", "usuário não encontrado",
        "usuário inválido", "utilizador desconhecido", "utilizador inexistente", "utilizador não existe",
        "utilizador não encontrado", "destinatário desconhecido", "destinatário inexistente",
        "destinatário não existe", "destinatário não encontrado", "destinatário inválido",
        "caixa postal inexistente", "caixa postal não existe", "caixa postal desconhecida",
        "caixa de correio não existe", "caixa de correio inexistente", "caixa postal não encontrada",
        "conta inexistente", "conta não existe", "conta desconhecida", "conta não encontrada",
        "endereço inexistente", "endereço não existe", "endereço desconhecido", "endereço inválido",
        "endereço não encontrado", "não existe este usuário",
    ]),
    (Disabled, &[
        "conta desativada", "conta desabilitada", "conta inativa", "conta suspensa", "conta bloqueada",
        "conta cancelada", "conta está desativada", "conta está inativa", "usuário desativado",
        "usuário inativo", "usuário bloqueado", "usuário suspenso", "caixa postal bloqueada",
        "caixa postal desativada", "caixa postal inativa",
    ]),
    (Full, &[
        "caixa postal cheia", "caixa postal está cheia", "caixa postal do destinatário cheia",
        "caixa de correio cheia", "caixa de correio está cheia", "caixa de entrada cheia", "caixa cheia",
        "caixa postal lotada", "quota excedida", "cota excedida", "excedeu a quota", "excedeu a cota",
        "excedeu sua cota", "excedeu sua quota", "limite de armazenamento", "espaço insuficiente na caixa",
    ]),
    // Italian
    (Missing, &[
        "utente sconosciuto", "utente inesistente", "utente non esiste", "utente non esistente",
        "utente non trovato", "utente non valido", "destinatario sconosciuto", "destinatario non esiste",
        "destinatario non trovato", "destinatario non valido", "destinatario non esistente",
        "casella inesistente", "casella non esiste", "casella non trovata", "casella sconosciuta",
        "casella di posta inesistente", "casella di posta non esiste", "casella postale inesistente",
        "indirizzo inesistente", "indirizzo sconosciuto", "indirizzo non esiste", "indirizzo non valido",
        "indirizzo non trovato", "indirizzo email inesistente", "account inesistente", "account non esiste",
        "mailbox inesistente", "nessun utente",
    ]),
    (Disabled, &[
        "casella disabilitata", "casella disattivata", "casella sospesa", "casella bloccata",
        "casella non attiva", "casella scaduta", "utente disabilitato", "utente disattivato",
        "utente sospeso", "account disabilitato", "account sospeso", "account disattivato",
        "account bloccato", "casella di posta disabilitata", "casella di posta disattivata",
    ]),
    (Full, &[
        "casella piena", "casella di posta piena", "casella è piena", "casella di posta è piena",
        "casella del destinatario è piena", "casella postale piena", "mailbox piena", "quota superata",
        "spazio esaurito", "spazio insufficiente nella casella", "superato la quota",
        "superamento della quota",
    ]),
    // Dutch
    (Missing, &[
        "gebruiker onbekend", "gebruiker bestaat niet", "gebruiker niet gevonden", "onbekende gebruiker",
        "ontvanger onbekend", "ontvanger bestaat niet", "ontvanger niet gevonden", "onbekende ontvanger",
        "ongeldige ontvanger", "adres bestaat niet", "adres onbekend", "adres is onbekend", "onbekend adres",
        "ongeldig adres", "emailadres bestaat niet", "mailadres bestaat niet", "postbus bestaat niet",
        "postbus niet gevonden", "mailbox bestaat niet", "mailbox onbekend", "geen mailbox", "geen gebruiker",
    ]),
    (Disabled, &[
        "mailbox is uitgeschakeld", "mailbox uitgeschakeld", "mailbox geblokkeerd",
        "account is uitgeschakeld", "account geblokkeerd", "account is geblokkeerd", "account opgeheven",
        "postbus geblokkeerd", "postbus is opgeheven", "gebruiker geblokkeerd", "niet meer actief",
    ]),
    (Full, &[
        "mailbox vol", "mailbox is vol", "postbus vol", "postbus is vol", "postvak vol", "postvak is vol",
        "quota overschreden", "quotum overschreden",
    ]),
    // Polish
    (Missing, &[
        "użytkownik nieznany", "nieznany użytkownik", "użytkownik nie istnieje", "nie ma takiego użytkownika",
        "brak takiego użytkownika", "nie znaleziono użytkownika", "taki użytkownik nie istnieje",
        "nieznany odbiorca", "odbiorca nieznany", "odbiorca nie istnieje", "nieprawidłowy odbiorca",
        "nieznany adres", "adres nie istnieje", "nieprawidłowy adres odbiorcy", "brak takiego adresu",
        "nie ma takiego adresu", "skrzynka nie istnieje", "nie ma takiej skrzynki", "brak takiej skrzynki",
        "brak skrzynki", "nieznana skrzynka", "konto nie istnieje", "brak takiego konta",
        "nie ma takiego konta", "nieistniejący użytkownik", "nieistniejące konto", "adresat nieznany",
        "nieznany adresat", "brak adresata",
    ]),
    (Disabled, &[
        "konto zablokowane", "konto jest zablokowane", "konto nieaktywne", "konto jest nieaktywne",
        "konto wyłączone", "konto zawieszone", "skrzynka zablokowana", "skrzynka nieaktywna",
        "skrzynka jest zablokowana", "skrzynka wyłączona", "użytkownik zablokowany",
    ]),
    (Full, &[
        "skrzynka pełna", "skrzynka jest pełna", "skrzynka odbiorcy jest pełna", "skrzynka przepełniona",
        "skrzynka jest przepełniona", "przepełniona skrzynka", "pełna skrzynka",
        "przekroczony limit skrzynki", "przekroczono limit skrzynki", "brak miejsca w skrzynce",
        "przekroczona quota",
    ]),
    // Russian, Ukrainian
    (Missing, &[
        "пользователь не найден", "пользователь не существует", "пользователь неизвестен",
        "неизвестный пользователь", "нет такого пользователя", "такого пользователя нет",
        "такой пользователь не", "такого пользователя не существует", "пользователя не существует",
        "пользователь отсутствует", "пользователь с таким", "получатель не найден",
        "получатель не существует", "получатель неизвестен", "неизвестный получатель", "неверный получатель",
        "нет такого получателя", "адресат не найден", "адресат неизвестен", "адресат не существует",
        "несуществующий адрес", "несуществующий пользователь", "несуществующий получатель",
        "почтовый ящик не существует", "почтовый ящик не найден", "ящик не найден", "ящик не существует",
        "ящика не существует", "нет такого ящика", "такого ящика нет", "такого почтового ящика",
        "нет такого почтового ящика", "несуществующий ящик", "адрес не существует", "адрес не найден",
        "адреса не существует", "нет такого адреса", "неизвестный адрес", "неверный адрес получателя",
        "учётная запись не найдена", "учётная запись не существует", "аккаунт не существует",
        "аккаунт не найден", "аккаунт удалён", "ящик удалён", "користувача не знайдено",
        "користувач не існує", "невідомий користувач", "скринька не існує", "немає такого користувача",
    ]),
    (Disabled, &[
        "ящик заблокирован", "почтовый ящик заблокирован", "ящик отключён", "ящик отключен",
        "почтовый ящик отключен", "аккаунт заблокирован", "аккаунт отключен", "пользователь заблокирован",
        "пользователь отключен", "учётная запись заблокирована", "учётная запись отключена", "ящик неактивен",
        "ящик не активен", "адрес отключен", "скриньку заблоковано",
    ]),
    (Full, &[
        "ящик переполнен", "почтовый ящик переполнен", "ящик полон", "ящик получателя переполнен",
        "превышена квота", "квота превышена", "превышен размер ящика", "превышен лимит ящика",
        "недостаточно места в ящике", "нет места в ящике", "переполнен ящик", "скринька переповнена",
    ]),
    // Chinese
    (Missing, &[
        "用户不存在", "用戶不存在", "用户未知", "未知用户", "未知用戶", "没有此用户", "沒有此用戶", "无此用户", "無此用戶", "無此使用者", "使用者不存在",
        "收件人不存在", "收信人不存在", "收件者不存在", "收件人地址不存在", "收件人未知", "无效的收件人", "无效收件人", "無效的收件人", "邮箱不存在", "郵箱不存在",
        "信箱不存在", "無此信箱", "邮箱地址不存在", "邮件地址不存在", "地址不存在", "郵件地址不存在", "帐号不存在", "账号不存在", "帳號不存在", "帐户不存在",
        "账户不存在", "帳戶不存在", "找不到收件人", "找不到用户", "查无此人", "查無此人", "不存在该用户", "不存在此用户", "没有这个用户", "邮箱已注销",
    ]),
    (Disabled, &[
        "邮箱被禁用", "邮箱已被禁用", "邮箱已停用", "用户被禁用", "用户已停用", "用户被锁定", "用户已被锁定", "帐号被锁定", "帐号已停用", "账号被锁定", "账号已停用",
        "账号已被禁用", "帐号已被禁用", "帳號已停用", "帳號已被停用", "信箱已停用", "邮箱被冻结", "邮箱已冻结", "帐号被冻结", "账号被冻结", "邮箱已过期", "用户已过期",
    ]),
    (Full, &[
        "邮箱已满", "郵箱已滿", "信箱已滿", "邮箱空间不足", "信箱空間不足", "用户邮箱已满", "收件人邮箱已满", "邮箱容量已满", "信箱容量已滿", "超出配额", "超过配额",
        "超出邮箱", "空间已满", "空間已滿", "邮箱满", "容量不足", "超出容量",
    ]),
    // Japanese
    (Missing, &[
        "ユーザーが存在しません", "ユーザが存在しません", "ユーザーは存在しません", "ユーザは存在しません", "ユーザー不明", "ユーザ不明", "不明なユーザ", "存在しないユーザ",
        "ユーザーが見つかりません", "ユーザが見つかりません", "宛先が存在しません", "宛先不明", "宛先が不明", "宛先が見つかりません", "あて先不明", "宛先アドレスが存在しません",
        "アドレスが存在しません", "アドレスは存在しません", "存在しないアドレス", "アドレスが見つかりません", "アドレスが間違って", "メールアドレスは使用されていません",
        "メールボックスが存在しません", "メールボックスが見つかりません", "メールボックスはありません", "受信者が存在しません", "受信者が見つかりません", "受信者不明",
        "アカウントが存在しません", "アカウントは存在しません", "該当するユーザ",
    ]),
    (Disabled, &[
        "アカウントは無効", "アカウントが無効", "アカウントは停止", "アカウントが停止", "メールボックスは無効", "メールボックスが無効", "メールボックスが停止", "アドレスは無効",
        "アドレスは停止", "利用停止", "ユーザーは無効", "ユーザは無効",
    ]),
    (Full, &[
        "メールボックスがいっぱい", "メールボックスが一杯", "メールボックスの容量", "メールボックスが満杯", "容量を超え", "容量オーバー", "容量が不足", "受信トレイがいっぱい",
        "クォータを超",
    ]),
    // Korean
    (Missing, &[
        "사용자를 찾을 수 없", "사용자가 존재하지 않", "존재하지 않는 사용자", "알 수 없는 사용자", "사용자 없음", "없는 사용자", "수신자를 찾을 수 없",
        "수신자가 존재하지 않", "존재하지 않는 수신자", "알 수 없는 수신자", "수신인이 존재하지 않", "받는 사람을 찾을 수 없", "존재하지 않는 메일",
        "존재하지 않는 주소", "존재하지 않는 이메일", "주소가 존재하지 않", "메일 주소를 찾을 수 없", "메일함이 존재하지 않", "메일박스가 존재하지 않",
        "사서함을 찾을 수 없", "사서함이 존재하지 않", "계정이 존재하지 않", "존재하지 않는 계정", "계정을 찾을 수 없", "없는 계정",
    ]),
    (Disabled, &[
        "휴면 계정", "휴면계정", "계정이 비활성", "비활성화된 계정", "정지된 계정", "계정이 정지", "사용이 중지된", "사용 중지된", "휴면 상태", "탈퇴한",
        "메일함이 비활성", "잠긴 계정",
    ]),
    (Full, &[
        "메일함이 가득", "메일함 용량", "사서함이 가득", "받은 편지함이 가득", "받은편지함이 가득", "용량 초과", "용량을 초과", "용량이 초과", "용량이 부족",
        "할당량 초과", "할당량을 초과", "메일박스가 가득",
    ]),
    // Turkish
    (Missing, &[
        "kullanıcı bulunamadı", "kullanıcı yok", "kullanıcı mevcut değil", "kullanıcı bilinmiyor",
        "böyle bir kullanıcı yok", "böyle bir kullanıcı bulunma", "bilinmeyen kullanıcı",
        "geçersiz kullanıcı", "alıcı bulunamadı", "alıcı mevcut değil", "alıcı bilinmiyor",
        "alıcı adresi geçersiz", "alıcı adresi bulunamadı", "bilinmeyen alıcı", "geçersiz alıcı",
        "posta kutusu bulunamadı", "posta kutusu yok", "posta kutusu mevcut değil", "böyle bir posta kutusu",
        "böyle bir adres", "böyle bir hesap", "hesap bulunamadı", "hesap mevcut değil", "adres bulunamadı",
        "adres mevcut değil", "eposta adresi bulunamadı",
    ]),
    (Disabled, &[
        "hesap devre dışı", "hesap askıya", "hesap pasif", "hesap kapalı", "hesap kapatıl", "hesabı kapatıl",
        "hesap kilitli", "kullanıcı pasif", "kullanıcı devre dışı", "posta kutusu devre dışı",
        "posta kutusu kapalı", "posta kutusu pasif",
    ]),
    (Full, &[
        "posta kutusu dolu", "posta kutusu doldu", "kota aşıldı", "kota aşımı", "kotası dolu", "kotası doldu",
        "kotasını aştı", "gelen kutusu dolu", "kota dolu",
    ]),
    // Czech, Slovak, Hungarian, Romanian, Swedish, Danish, Norwegian, Finnish, Greek, Vietnamese, Arabic
    (Missing, &[
        "uživatel neexistuje", "neznámý uživatel", "uživatel nenalezen", "neexistující uživatel",
        "příjemce neexistuje", "neznámý příjemce", "schránka neexistuje", "adresa neexistuje",
        "používateľ neexistuje", "neznámy používateľ", "ismeretlen felhasználó", "nincs ilyen felhasználó",
        "ismeretlen címzett", "nem létező", "nincs ilyen cím", "utilizator necunoscut",
        "utilizatorul nu există", "utilizator inexistent", "destinatar necunoscut", "adresa nu există",
        "okänd användare", "användaren finns inte", "okänd mottagare", "mottagaren finns inte",
        "adressen finns inte", "ukendt bruger", "brugeren findes ikke", "ukendt modtager", "ukjent bruker",
        "brukeren finnes ikke", "ukjent mottaker", "tuntematon käyttäjä", "käyttäjää ei ole",
        "käyttäjää ei löydy", "tuntematon vastaanottaja", "vastaanottajaa ei", "άγνωστος χρήστης",
        "ο χρήστης δεν υπάρχει", "άγνωστος παραλήπτης", "δεν υπάρχει χρήστης", "người dùng không tồn tại",
        "địa chỉ không tồn tại", "không tồn tại", "المستخدم غير موجود", "مستخدم غير معروف",
    ]),
    (Full, &[
        "schránka je plná", "schránka plná", "plná schránka", "a postafiók megtelt", "postafiók megtelt",
        "postafiók tele", "căsuța este plină", "căsuța poștală este plină", "brevlådan är full",
        "inkorgen är full", "postkassen er full", "postkassen er fuld", "indbakken er fuld",
        "postilaatikko on täynnä", "γραμματοκιβώτιο είναι πλήρες", "hộp thư đầy", "hộp thư đã đầy",
    ]),
    (Disabled, &[
        "schránka je zablokována", "účet je zablokován", "účet je deaktivován", "kontot är spärrat",
        "kontot är inaktiverat", "kontoen er sperret", "kontoen er deaktiveret", "cont dezactivat",
        "cont suspendat",
    ]),
];
