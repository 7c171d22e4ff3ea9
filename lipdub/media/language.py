"""Names of languages in files: what a person writes (uk, uk-UA, ukr) and the code that each container keeps."""

from __future__ import annotations

import re

from lipdub.errors import InputError

# ISO 639-1 : ISO 639-2/T
_TWO_LETTERS = """
    aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bh:bih
    bi:bis bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym da:dan
    de:deu dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin fj:fij fo:fao fr:fra
    fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun hy:hye hz:her
    ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl it:ita iu:iku ja:jpn jv:jav ka:kat kg:kon ki:kik kj:kua
    kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug li:lim ln:lin
    lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya na:nau nb:nob
    nd:nde ne:nep ng:ndo nl:nld nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli
    pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag si:sin sk:slk
    sl:slv sm:smo sn:sna so:som sq:sqi sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir
    tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol
    wa:wln wo:wol xh:xho yi:yid yo:yor za:zha zh:zho zu:zul
"""
# ISO 639-2/T : the bibliographic (B) code of the same language, where it is another
_BIBLIOGRAPHIC = """
    bod:tib ces:cze cym:wel deu:ger ell:gre eus:baq fas:per fra:fre hye:arm isl:ice kat:geo mkd:mac mri:mao msa:may
    mya:bur nld:dut ron:rum slk:slo sqi:alb zho:chi
"""
_LONG = {short: long for short, _, long in (pair.partition(":") for pair in _TWO_LETTERS.split())}
_TO_B = {t: b for t, _, b in (pair.partition(":") for pair in _BIBLIOGRAPHIC.split())}
_TO_T = {b: t for t, b in _TO_B.items()}
# Codes that were replaced long ago, and that services still use.
_FORMER = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro"}
_KEPT_BY_QUICKTIME = {"ces", "fra", "ron", "slk"}  # FFmpeg's list of QuickTime languages has B codes but for these


def language_code(tag: str) -> str:
    """Three-letter code (ISO 639-2/T, or 639-3) of a language tag, without script and region.

    Args:
        tag: "uk", "uk-UA", "ukr", "zh-Hans", "ger", ..., in any case.

    Raises:
        InputError: no such tag.
    """
    match = re.fullmatch(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{1,8})*", tag.strip())
    word = match[1].lower() if match else ""
    word = _FORMER.get(word, word)
    code = _LONG.get(word, "") if len(word) == 2 else _TO_T.get(word, word)
    if not code:
        raise InputError(f"invalid language tag {tag!r}", "use a code such as uk, en or pt-BR")
    return code


def code_in(muxer: str, code: str) -> str:
    """Three-letter code as a container needs it: Matroska and QuickTime use bibliographic codes."""
    if muxer in ("matroska", "webm") or (muxer == "mov" and code not in _KEPT_BY_QUICKTIME):
        return _TO_B.get(code, code)
    return code
