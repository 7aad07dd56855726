"""Fragments of regular expressions: how replies introduce an answer, and what may follow the label (see `answer_marks`).

For `re.VERBOSE | re.IGNORECASE | re.MULTILINE`, over folded text: a space in a pattern is `[ ]`.
"""

from __future__ import annotations

from slimtune.evaluate.answer_marks import ANY, BOXED, DIGITS, LETTERS, LISTING, OPEN, SYMBOL

# What may stand behind a label ----------------------------------------------------------------------------------------

# cです, cとなる, cだと思う, but not 「cであるとすると」, 「cだとしても」.
IS = r"""(?:で(?:す|あ(?:る(?!なら|とす|場合|と仮|かのよ)|り|ろ|った)|し[たょ]|ござ|は?(?:ない|あるまい)(?:か|で|だ|の)|はなかろう|[、,])
    |だ(?!と(?:す|し|仮|は限))|と(?:な[るりっ]|考え(?!られがち)|思(?!われがち)|判断|結論|言え|いえ|いう(?:こと|結論|答)|しま|する(?![とな])|推|解|見)
    |に(?:な[りる]|決)|か(?:と[思考]|な|も|[?。]|[ ]*$)|の(?:よう(?:です|だ|に思)|はず|\(|み|方|ほう)|のみ|だけ|でしょ|だろ|っぽい|一択
    |[よねな][。!\n]|じゃない(?:か|で))"""
COPULA = rf"(?:{IS}|と(?:答え|回答|解答)|が(?:正|適|最|答|妥|該|当|あて|合|ふさ|選)|を(?:選|正解|回答|解答))"
NO_FORM = r"(?![ )']*(?:の(?:形|よう(?!です|だ|に思)|ごと|書式)|という(?:形|よう)|など|といった|の[ ]*ような))"
PARTICLE = r"[はがもにをへのとやでか]"
# Behind "回答: c": nearly anything but a particle that makes the label the subject of something else.
LOOSE = rf"{NO_FORM}(?=[ ]*(?:{COPULA}|$|{SYMBOL})|[ ]+(?!{PARTICLE})\S|[{BOXED}])"
# Behind "the answer is c": the clause ends.
CLAUSE_END = rf"""(?=[ )]*(?:$|[.。,;:!?(→-]|(?:because|since|as|for|which|that|and|with|given|based|due|according|under|by|so)\b|[ ](?-i:[A-Z\d])
    |[^\x00-\x7f{LETTERS}{DIGITS}]))"""
CLOSED = rf"{NO_FORM}(?=[ )']*(?:{COPULA}|[。.!?]|$))"
# The same, and more may be said of it: 「正しいのはc（第5条）」.
ENDED = rf"{NO_FORM}(?=[ )']*(?:{COPULA}|[。.!?、,:(-]|$))"

# What may stand around it ---------------------------------------------------------------------------------------------

ANSWER = rf"(?P<answer>{ANY})"
HEDGE = r"""(?:おそらく|恐らく|たぶん|多分|きっと|もちろん|明らかに|やはり|当然|ずばり|次の(?:通り|とおり)|以下の(?:通り|とおり)|therefore|thus|then|clearly
    |obviously|probably|likely|most|definitely|indeed|simply|also|certainly|either|the|option|choice|letter|answer|it|is|be)"""
FILLER = rf"(?:[ 、,:(]|{HEDGE}){{0,8}}"
LINK = rf"(?:[ \n:=→()|、,.・\-'{LISTING}]|は|が|とは|として(?:は)?|的に|の|是|为|為|{HEDGE}){{0,16}}"
# "（1文字のみ）", however badly it was copied.
NOTE = rf"(?:[ ]*\([^()\n]{{0,40}}\)|[ ]*{LISTING}|[ ]*[{DIGITS}](?=[ ]*:)|[ (:]*[^。\n:はを{LETTERS}{DIGITS}{OPEN}]{{0,12}}(?:文字|のみ|だけ|以内)[ )のみ]*(?=[:は\n]))?"
UNMARKED = rf"[^。\n{LETTERS}{DIGITS}{OPEN}{LISTING}]"
UNMARKED_CLAUSE = rf"[^。\n()はが{LETTERS}{DIGITS}{OPEN}{LISTING}]"
UNMARKED_EN = rf"[^.\n:;{LETTERS}{DIGITS}{OPEN}{LISTING}]"
PART = r"(?:[ ]*(?:(?:の|という)(?:選択肢|記述|肢|内容|方|ほう|説明|もの)|の?\([^()\n]{0,80}\)))?"

MARKER = r"""(?<![不未誤])(?:(?:最終|最後)(?:的な?|の)?[ ]*)?(?:回答|解答|答え|こたえ|答案|答|正解|正答|正确答案|結論|结论)
    (?:の)?(?:選択肢|記号|番号|肢|文字|ラベル|欄)?"""
MARKER_EN = rf"""(?<![A-Za-z])(?:answers?|ans|solution|correct(?=[ ][{LETTERS}{DIGITS}])|(?:correct|right|best|final|chosen|selected)[ ](?:answer|option|choice|letter|statement|alternative|one|response
    |selection))(?![A-Za-z])(?:[ ](?:letter|choice|option|key|number|label))?"""
FIELD = r"""(?<![A-Za-z])(?:letter|final|選択(?:肢)?|記号|番号|判定|判断|予測|予想|出力|結果|解|option|choice|selection|selected|response|prediction|predicted|label|output
    |result|conclusion|verdict|decision|pick|solution)"""
WANTED = r"""(?:正し|誤[っり]|間違|適切|不適切|妥当|適当|該当|当ては|あては|合致|一致|合[うっ]|沿[うっ]|ふさわし|適合|正確|矛盾|反す|選ぶべき|選択すべき|最も近い|違反|正解でない)"""
RIGHT = r"""(?:正し(?:い|く)(?!な|は|も)|正解|正答|正確|答え|回答|解答|適切|適当|妥当|該当|当てはま|あてはま|合致|一致|適合|ふさわし|最適|条文(?:どおり|通り)|[◎○◯]
    |選択(?:すべき|される)|選ばれ)(?![^。\n]{0,4}(?:な[いくか]|ません|ず))"""
FAULTY = "(?:誤|間違|不適)"
WRONG = rf"(?:{FAULTY}|正しくない|適切では?ない|妥当では?ない|該当しない|違反|[×✗✕❌])"
SUPPOSED = r"""(?![^。\n]{0,3}(?:よう|と(?:もい|も言|すれ|する(?!の)|した|仮定|は限|は言|考えられがち|思われがち|誤解|いう(?!こと|結論))|なら|場合|とき|か(?:どうか|否か|、)
    |かもしれ|とされ|と主張|と述べ|が、))"""
WANTED_EN = r"""(?:correct|incorrect|right|wrong|best|true|false|inaccurate|accurate|appropriate|inappropriate|invalid|valid|suitable|unsuitable|improper|proper|closest|odd)
    (?:[ ](?:answer|option|choice|statement|one|alternative|letter|selection|description|response|item|description))?"""
THEREFORE = r"""(?:よって|したがって|従って|ゆえに|故に|それゆえ|∴|以上(?:より|から|により|のことから|の(?:こと|理由|点|検討)(?:から|より|により)|を踏まえ(?:ると|て)?|によれば)?
    |このことから|これらから|これより|そのため|そこで|だから|つまり|すなわち|結局|結論として|\b(?:therefore|thus|hence|consequently|accordingly|in[ ]conclusion|so)\b
    |消去法(?:で|により|から|的に)|(?:選ぶ|挙げる|言う|いう|答える)(?:なら|とすれば|と)|(?:言え|いえ|挙げれ)ば|因此|所以|故)"""
MOST = r"(?:[、, ]|唯一の?|最も|もっとも|一番|明らかに|正に|まさに|本問の|この(?:問題|設問|中)の?|問題の){0,6}"
VERY = r"(?:[ ](?:to[ ]be|clearly|obviously|therefore|thus|probably|likely|indeed|definitely|actually|most|the|our|my|only|single|final|best|one)){0,5}"
OPENING = r"""(?:は(?=[ 、])|はい|(?:お答え|ご?回答)(?:いた)?します|承知(?:しま|いたしま)した|かしこまりました|了解(?:です|しました)?|もちろん(?:です)?|それでは|では|ええ|うーん|私は|これは|それは|おそらく|恐らく|たぶん
    |多分|きっと|やはり|sure|ok(?:ay)?|certainly|of[ ]course|yes|well|hmm|so|probably|likely|maybe|i[ ](?:think|believe|guess|would[ ]say|say)(?:[ ]that)?
    |i'd[ ]say|it(?:[ ]i|')s|(?:it|that|this)(?:[ ](?:must|would|should))?[ ]be|that(?:[ ]i|')s|must[ ]be)[ 、,.!:。]*"""
THING = "(?:もの|選(?:ぶ|択す)べき|選択肢|記述|肢|番号|記号|組み?合わ?せ)"
CHOOSE = r"""(?:選(?:び(?!ません)|ぶ|ん[だで]|択(?:し(?!ません|ない)|す|肢と))|(?:回答|解答|答え|正解)(?:と?し(?!ません|ない)|と?する|ます|る))
    (?!と|べきでは?な|場合|人|こと(?:は|が)でき|のは|のも)"""
CHOOSE_EN = r"""(?<!not[ ])(?<!n't[ ])(?<!never[ ])\b(?:cho(?:ose|osing|se)|select(?:ed|ing)?|pick(?:ed|ing)?|go(?:ing)?[ ]with|went[ ]with
    |opt(?:ed|ing)?[ ]for|vote[ ]for|my[ ](?:choice|pick|vote)[ ]is)"""
IS_RIGHT = rf"""(?:is|(?:would|must|should)[ ]be|has[ ]to[ ]be|seems|appears|looks){VERY}[ ](?:correct|right|answer|best|appropriate|accurate|true|valid|suitable
    |proper|choice|option)\b(?![ ](?:if|when|to|only[ ]if)\b)"""
# Behind a label that begins its line: the choice's text, or a reason.
TEXT = rf"(?:[.):,、。;→(-]|[ ](?!{PARTICLE}|(?-i:[a-z]))(?=\S)|[ ](?:because|since|as)\b)"
