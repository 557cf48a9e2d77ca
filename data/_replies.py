"""What customers of an invented shop write, and what the house answers."""

NAMES = """
Maya Jonas Priya Tom Elena Samuel Aisha Noah Greta Luis Hannah Omar Ruth Felix Ingrid Daniel Chloe
Pedro Nina Victor Leila Martin Sofia Hugo Irene Kofi Clara Yusuf Anna Bruno Tess Marek Olive Dario
""".split()
ITEMS = """
tent|sleeping bag|headlamp|rain jacket|backpack|camping stove|water bottle|pair of boots|hammock
sleeping mat|pocket knife|folding chair|lantern|bike pump|wool hat|trekking pole|cool box|dry bag
""".replace("\n", "|").strip("|").split("|")

# An issue; what customers write, after "Q"; what the house answers, after "A", and its next step,
# after "N". A line that begins with a space goes on with the one before.
ISSUES = """
# damaged
Q Hi, my {item} arrived with a crack right across it. Order {order}. {name}
Q Order {order} came today and the {item} is broken. What now? Regards, {name}
Q This is {name}. The {item} from order {order} was damaged in the post, the box was open on one
  side.
A Thank you for telling us about the damage to the {item} in {order}. A new one leaves our
  warehouse within 2 working days.
N keep the old one until the new one is with you.
A The {item} in {order} should have reached you whole, and we will replace it at our cost.
N send us one photo of the damage in reply to this message.
A We have noted the damaged {item} in {order}, and a replacement is booked for you.
N leave the box by your door on the day of delivery, and the driver will take it back.
# late parcel
Q I ordered a {item} three weeks ago and nothing has come. The number is {order}. {name}
Q Where is my parcel? {order}, one {item}. I leave on Friday and need it. {name}
Q Hello, {name} here, the tracking of {order} has not moved since Monday. It is only a {item}.
A Thank you for waiting for the {item} in {order}. The carrier has it at the depot, and it is due
  within 3 working days.
N reply to this message if it is not there by then.
A We have asked the carrier about {order} and will pay for express delivery of the {item}.
N watch for a new tracking link by email this evening.
A Your {item} in {order} is on its way again after a stop at the sorting centre.
N choose a delivery day with the link in the carrier's email.
# wrong item
Q You sent me gloves. I ordered a {item}! Order {order}, {name}
Q Hello, the parcel for {order} holds somebody else's things and not my {item}. Yours, {name}
Q My name is {name} and in place of the {item} of order {order} I got a red scarf.
A Thank you for checking the parcel. The {item} of {order} goes out to you today, without further
  cost.
N put the wrong article back in its box, and we will send a label for it.
A The parcel of {order} was packed with the wrong article, and the right {item} is on its way.
N keep what you have until our driver collects it.
A We have matched {order} to your {item} again, and it ships within 1 working day.
N hand the other article to the driver who brings it.
# refund
Q When do I get my money back for the {item}? I returned it ten days ago, order {order}. {name}
Q {order}: returned the {item}, no refund so far. Please look into it. {name}
Q Good morning, I am {name}. My bank shows no payment from you for the {item} I sent back, {order}.
A Thank you for sending back the {item}. The refund for {order} left us yesterday and takes up to 5
  working days at the bank.
N check the card that you paid with.
A We have the {item} of {order} here, and the full price goes back to you today.
N look for the name Fernway on your next statement.
A Your return for {order} is complete, and the refund for the {item} is approved.
N tell us if nothing has arrived within 5 working days.
# new address
Q I moved last week. Can you send {order} to my new flat? It is the {item}. {name}
Q Hi, wrong address on {order}, the {item} should go to 4 Mill Lane. Thanks, {name}
Q {name} here. Please change the delivery address of my {item}, order {order}, to my office.
A Thank you for the new address. The {item} of {order} has not left yet, so the change is easy.
N confirm the street and postcode in reply to this message.
A We can still change where {order} goes, and the {item} will wait for it.
N write to us with the full address by noon tomorrow.
A The address for {order} is open for changes until tonight, and your {item} stays here until then.
N enter the new one under My orders.
# cancel
Q Please cancel {order}, I found a {item} elsewhere. {name}
Q I have changed my mind about the {item}. Can {order} be stopped? Best, {name}
Q This is {name}, I ordered the {item} twice by mistake. Take back {order}, please.
A Thank you for writing in time. We have cancelled {order}, and the {item} will not be charged.
N delete the payment notice that you received.
A The {item} of {order} was still on our shelf, so the order is closed.
N look for our confirmation in your inbox.
A We have stopped {order} for you, and the price of the {item} returns within 3 working days.
N keep this message as your proof.
# invoice
Q I need an invoice for the {item}, order {order}, made out to my company. {name}
Q The bill for {order} is missing. It was one {item}. Could you send it? {name}
Q Hello, my accountant wants a receipt for a {item}. {order}. Thank you, {name}
A Thank you for asking. The invoice for the {item} in {order} is ready as a PDF.
N tell us the name and tax number that it should show.
A We have sent the invoice for {order} to your email, with the {item} as its only line.
N open it and check the address.
A The receipt for your {item} in {order} is stored in your account.
N download it under My orders.
# missing part
Q There are no pegs, straps or anything with my {item}. Order {order}. {name}
Q {name} writing: one piece of the {item} is not in the box, the number is {order}.
Q Hi, I unpacked the {item} from {order} and a screw is missing, so I cannot use it. {name}
A Thank you for counting the parts. The missing piece for the {item} in {order} goes out by letter
  post today.
N look in your letter box within 3 working days.
A We keep spare parts for every {item}, and the one for {order} is packed.
N send us a picture of the parts that you do have.
A The part that {order} lacks is on its way, so your {item} can stay as it is.
N follow the drawing that comes with it.
# other size
Q The {item} is too small for me. Can I swap it for a larger one? {order}, {name}
Q I took the wrong size of {item} in order {order}. How do I exchange it? Greetings, {name}
Q {order}: {item} does not fit. I would like the next size up. My name is {name}.
A Thank you for trying it on. The larger {item} is set aside for {order}.
N send back the first one with the label in the box.
A We exchange the {item} of {order} free of charge within 60 days.
N choose the size under My orders.
A Another size of the {item} in {order} is in stock and waits for you.
N bring the first one to any Fernway store or post it to us.
# return
Q How do I send back a {item}? It is from order {order}. {name}
Q I do not like the colour of the {item}. Can I return {order}? {name}
Q Dear Fernway, {name} here, I would like to give back the {item} I bought, {order}.
A Thank you for asking first. The {item} in {order} can come back within 60 days.
N print the label from My orders and put it on the box.
A We take back the {item} of {order} and pay the postage.
N drop the parcel at any post office.
A Your return of the {item} in {order} is open in our system.
N pack it dry and clean, with its tags.
# voucher
Q My voucher did not work when I bought the {item}, order {order}. {name}
Q I forgot to enter my discount code for {order}. Can you take it off the {item}? {name}
Q Hi, {name}, the promised ten percent are not on the bill for my {item}. {order}.
A Thank you for pointing this out. We have taken the discount off the {item} in {order}.
N check the new total in your account.
A The code is valid for the {item}, and the difference on {order} returns to you within 3 working
  days.
N keep the code for one more order.
A We can add the voucher to {order} after the purchase of the {item}.
N send us the code in reply to this message.
# stock
Q I am waiting for the {item} that was sold out, order {order}. When will it be back? {name}
Q Is the {item} of {order} in stock by now? Cheers, {name}
Q Your site says that my {item} is on back order. {order}. How long will it take? {name}
A Thank you for your patience with {order}. The next batch of this {item} reaches us within 10
  working days.
N leave the order as it is, and it ships by itself.
A We have reserved the first {item} of the new delivery for {order}.
N look for our shipping notice next week.
A The {item} for {order} is at the customs office and will be here soon.
N tell us if you would rather have another colour.
# repair
Q The zip of my {item} is stuck. Do you repair things? I bought it in order {order}. {name}
Q After two years my {item} has a hole. Can Fernway mend it? {order}, {name}
Q I am {name}. I would rather have the {item} from {order} repaired than buy a new one.
A Thank you for keeping it in use. Our workshop mends the {item} of {order} within 10 working days.
N send it to us clean and dry.
A We repair every {item} that we have sold, and {order} is on our list.
N tell us where the fault is.
A The workshop has a free place for the {item} of {order} this week.
N book the repair under My orders.
# loud complaint
Q This is the WORST shop ever!!! The {item} is rubbish and nobody answers. {order}. {name}
Q I have written four times about {order} and my {item}!! Do you even read this? {name}
Q Unbelievable. Two months for a {item}, and then it falls apart. {order}, {name}. I want my money
  back NOW!
A Thank you for writing again. One person now looks after {order} and your {item} until this is
  settled.
N answer this message, and it goes straight to her.
A We have read all you wrote about the {item} in {order}, and you may choose a refund or a new one.
N tell us which of the two you prefer.
A Your message about the {item} in {order} is with the head of our team today.
N give us a telephone number and a good time to call.
# double charge
Q You charged my card twice for the {item}. Order {order}. {name}
Q Why are there two payments for {order}? I bought one {item} only. {name}
Q Hello, {name} here. My statement shows the {item} two times, both for {order}.
A Thank you for the careful look. The second payment for the {item} in {order} is only reserved and
  will drop off within 3 working days.
N look at your statement again next week.
A We see two payments for {order} and return one of them today.
N keep the other, which paid for your {item}.
A One of the charges for the {item} in {order} has been taken back.
N ask your bank if it still shows tomorrow.
# how to use
Q How do I fold the {item} so that it fits into its bag? It is from {order}. {name}
Q There were no instructions with my {item}, order {order}. Can you help? {name}
Q I cannot get the {item} to work, {order}. What am I doing wrong? {name}
A Thank you for asking. There is a short film for the {item} in {order} on our site.
N open Help and type the name of the article.
A We have sent the guide for the {item} in {order} to your email.
N begin with the drawing on page two.
A The {item} of {order} is easier with two people at first.
N call our workshop between nine and five.
# pick up
Q Can I collect the {item} from your store? Order {order}. {name}
Q I would like to pick up {order} myself, it is just a {item}. {name}
Q Good day, is my {item} at the shop already? {order}. {name}
A Thank you for choosing the store. The {item} of {order} waits for you at the counter.
N bring the order number with you.
A We have moved {order} to the store, and the {item} is there within 1 working day.
N wait for our text message before you come.
A Your {item} in {order} can be collected from nine to six.
N ask at the desk on the ground floor.
# gift
Q The {item} is a present. Can you wrap it and leave the price out? {order}, {name}
Q {order} is for my sister's birthday. Could you put a card with the {item}? {name}
Q Hi, {name} here, is it possible to gift wrap the {item} in order {order}?
A Thank you for giving it as a present. The {item} of {order} will be wrapped in green paper,
  without a price.
N tell us what the card should say.
A We are glad to wrap the {item} of {order} at no cost.
N choose a ribbon under My orders by tonight.
A Your {item} in {order} now has a gift note.
N check the name of the person who will receive it.
# warranty
Q How long is the warranty on the {item}? Mine is from order {order}. {name}
Q The {item} stopped working after a year. {order}. Is that covered? {name}
Q Dear team, does the guarantee hold if I bought the {item} on sale? {order}. {name}
A Thank you for asking. The {item} in {order} is covered for 3 years, on sale or not.
N keep this message with your receipt.
A We cover the {item} of {order} for 3 years from the day it reached you.
N describe the fault in a sentence or two.
A The warranty for the {item} in {order} is still open.
N send it in with the label that we email today.
# delivery abroad
Q Do you deliver to Norway? I would like {order}, the {item}, sent to my cabin. {name}
Q Can the {item} of order {order} go to my son in Spain? {name}
Q {name} here, I will be in Ireland next month, could you ship {order} there? It is the {item}.
A Thank you for asking. We deliver the {item} of {order} to all of Europe within 6 working days.
N give us the address and a telephone number there.
A The {item} of {order} can go abroad for the same price.
N change the country under My orders.
A We have opened {order} for another country, and the {item} ships once we know where to.
N reply with the full address.
# data
Q Please delete my account. My last purchase was {order}, a {item}. {name}
Q What do you store about me? I bought one {item}, order {order}. {name}
Q I want no more emails from you. {name}, {order}, the {item}.
A Thank you for telling us. Your account goes within 5 working days, and only the bill for the
  {item} in {order} is kept, as the law asks.
N confirm with the link that we email.
A We keep your name, your address and {order} with the {item}, and nothing else.
N read the full list under My data.
A You are off our mailing list, and only news about the {item} in {order} will reach you.
N tell us if another letter comes.
# praise
Q Just wanted to say that I love my {item}! Order {order}. {name}
Q The {item} from {order} kept me dry for three weeks in Scotland. Well done. {name}
Q {name} again. Great service, {order} was here the next day and the {item} is perfect.
A Thank you for these kind words. The people who packed the {item} of {order} will read them today.
N share a picture with us if you like.
A We are happy that the {item} of {order} serves you well.
N rinse it with clear water now and then, and it will last.
A It is good to hear that {order} was quick and that the {item} is right.
N tell us where you take it next.
# wrong price
Q The {item} is ten euros cheaper on your site today. I paid more, {order}. {name}
Q Why did the price of the {item} in {order} go up at the till? {name}
Q Hello, {order}: the {item} was on sale, but I was charged in full. {name}
A Thank you for comparing. We match the lower price for the {item} in {order}.
N look for the difference on your card within 3 working days.
A The sale price of the {item} holds for {order} too, and we have corrected it.
N open your account to see the new bill.
A We have noted the two prices of the {item} and credited {order} with the difference.
N use the credit with your next purchase.
# lost parcel
Q The carrier says that {order} was delivered, but I have no {item}. {name}
Q My {item} was left in the rain and is gone. Order {order}. {name}
Q It is {name}. Nobody in the house has seen the parcel {order} with my {item}.
A Thank you for asking your neighbours. We have opened a search for {order}, and a new {item} ships
  within 2 working days.
N tell us if the first parcel turns up.
A The carrier looks for {order} today, and we send another {item} if it is not found.
N give us a place where parcels can be left.
A We take care of the lost {item} of {order}, at no cost to you.
N sign the short form that we email.
"""
